"""The parameters of a URL.

asyncpg sends a parameter that it does not know to the server as a setting, such as
`application_name`. The server rejects what is not one: the parameters of libpq that asyncpg lacks,
and those of SQLAlchemy's dialect.
"""

from __future__ import annotations

from sqlalchemy import URL

__all__ = ["check_parameters"]

# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_VALUES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any", "read-write", "read-only", "primary", "standby", "prefer-standby",
    ),
}  # fmt: skip
_INSTEAD = {
    "connect_timeout": "use the option `connect_timeout_s` of the store",
    "command_timeout": "use the option `statement_timeout_s` of the store",
    "timeout": "use the option `connect_timeout_s` of the store",
    "prepared_statement_cache_size": "use the option `transaction_pooler` of the store",
    "statement_cache_size": "use the option `transaction_pooler` of the store",
    "prepared_statement_name_func": "use the option `transaction_pooler` of the store",
    "fallback_application_name": "use `application_name`",
    "ssl": "use `sslmode`",
    "requiressl": "use `sslmode=require`",
    "hostaddr": "use `host`",
}
_UNSUPPORTED = frozenset(
    {"channel_binding", "client_encoding", "gssdelegation", "gssencmode", "keepalives",
     "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
     "max_protocol_version", "min_protocol_version", "replication", "require_auth",
     "requirepeer", "scram_client_key", "scram_server_key", "sslcertmode", "sslcompression",
     "sslcrldir", "sslkeylogfile", "sslsni", "tcp_user_timeout"}
)  # fmt: skip


def check_parameters(url: URL) -> None:
    """Reject parameters that asyncpg does not implement, and values that it does not know.

    Raises:
        ValueError: there is one.
    """
    for name, value in url.query.items():
        if name in _INSTEAD:
            raise ValueError(f"{name!r} is not supported in a PostgreSQL URL: {_INSTEAD[name]}.")
        if name in _UNSUPPORTED:
            raise ValueError(f"{name!r} is not supported in a PostgreSQL URL: remove it.")
        if name in _VALUES and value not in _VALUES[name]:
            raise ValueError(
                f"{name!r} in a PostgreSQL URL must be one of {', '.join(_VALUES[name])}."
            )
