"""The meaning of the errors of PostgreSQL and asyncpg."""

from __future__ import annotations

import re

from ..errors import (
    NOT_OUR_TABLES,
    RETRY_LATER,
    ErrorInfo,
    ErrorKind,
    cause_chain,
    classify_by_type,
)

__all__ = ["classify_error", "was_not_sent", "was_rolled_back"]


def classify_error(error: BaseException) -> ErrorInfo:
    """Classify an error by its code or type, never by its text."""
    for cause in cause_chain(error):
        code = getattr(cause, "sqlstate", None)
        if isinstance(code, str):
            kind, advice = _SQLSTATES.get(code) or _SQLSTATES.get(code[:2]) or (ErrorKind.OTHER, "")
            if code == "42501":
                advice = advice.format(_lacking_privilege(cause))
            return ErrorInfo(kind, f"SQLSTATE {code}", advice)
        if type(cause).__name__ == "ClientConfigurationError":
            return ErrorInfo(
                ErrorKind.OTHER,
                "the connection cannot be configured",
                "Check the URL parameters and the files they refer to.",
            )
        if type(cause).__name__ == "TargetServerAttributeNotMatched":
            return ErrorInfo(
                ErrorKind.UNAVAILABLE,
                "no server matches the `target_session_attrs` in the URL",
                "If a failover is in progress, try again later; otherwise, check the hosts in the "
                "URL.",
            )
        if _is_of_asyncpg(cause, "InterfaceError", "InternalClientError", "ProtocolError"):
            return ErrorInfo(ErrorKind.TRANSIENT, "the connection was lost", RETRY_LATER)
    return classify_by_type(error)


def was_rolled_back(error: BaseException, *, pooled: bool) -> bool:
    """Return whether an error of a statement that commits means that nothing was committed.

    True for an error of the server, which reports none after a commit. A fatal one is only the
    `__cause__` of asyncpg's error, if it arrived before the connection broke.

    Args:
        error: the error.
        pooled: whether there is a pooler, which reports the loss of a server as a fatal error.
    """
    for cause in cause_chain(error):
        code, severity = getattr(cause, "sqlstate", None), getattr(cause, "severity_en", None)
        if severity is not None and isinstance(code, str) and not code.startswith("08"):
            return severity == "ERROR" or not pooled
    return False


def was_not_sent(error: BaseException) -> bool:
    """Return whether asyncpg raised the error of a call before it sent anything.

    It does if a value cannot be encoded, or if it knows that the connection was closed. One
    type is used for other errors, too, so that only its text distinguishes them.
    """
    return any(
        _is_of_asyncpg(cause, "DataError", "InterfaceError")
        or (
            _is_of_asyncpg(cause, "InternalClientError")
            and str(cause).startswith("cannot switch to state")
        )
        for cause in cause_chain(error)
    )


def _is_of_asyncpg(error: BaseException, *names: str) -> bool:
    """Return whether an error is of one of these types, without importing asyncpg."""
    return type(error).__name__ in names and type(error).__module__.startswith("asyncpg.")


def _lacking_privilege(error: BaseException) -> str:
    """Return the server's own message, which names an object; a trigger may raise any text."""
    texts = (str(getattr(cause, "message", "")) for cause in cause_chain(error))
    message = next(filter(None, texts), "")
    own = re.match(r"(permission denied for|must be owner of) ", message) and message.isprintable()
    return message if own else "insufficient privilege"


# https://www.postgresql.org/docs/current/errcodes-appendix.html, by code or by class
_SQLSTATES = {
    "08": (ErrorKind.TRANSIENT, RETRY_LATER),  # connection exception
    "23503": (ErrorKind.RUN_MISSING, ""),  # foreign_key_violation
    "25006": (
        ErrorKind.UNAVAILABLE,  # read_only_sql_transaction
        "The server is a standby or was made read-only: point the URL at the primary.",
    ),
    "26000": (
        ErrorKind.TRANSIENT,  # invalid_sql_statement_name
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "28": (ErrorKind.UNAVAILABLE, "Check the user and the password in the URL."),
    "3D000": (ErrorKind.UNAVAILABLE, "The database does not exist: create it, or check the URL."),
    "3F000": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # invalid_schema_name
    "40001": (ErrorKind.TRANSIENT, RETRY_LATER),  # serialization_failure
    "40P01": (ErrorKind.TRANSIENT, RETRY_LATER),  # deadlock_detected
    "42501": (ErrorKind.OTHER, "The user lacks a privilege ({}): grant it, or use another user."),
    "42703": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # undefined_column
    "42P01": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # undefined_table
    "42P05": (
        ErrorKind.TRANSIENT,  # duplicate_prepared_statement
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "53100": (ErrorKind.OTHER, "The server's disk is full: nothing was written; free some space."),
    "53300": (
        ErrorKind.TRANSIENT,  # too_many_connections
        "Raise the server's max_connections or lower `pool_size`.",
    ),
    "54000": (ErrorKind.OTHER, "A value exceeds PostgreSQL's size limit (1 GB)."),
    "55000": (
        ErrorKind.UNAVAILABLE,  # object_not_in_prerequisite_state
        "The database is not accepting connections: allow connections, or wait.",
    ),
    "55P03": (
        ErrorKind.UNAVAILABLE,  # lock_not_available
        "A lock was held for too long: terminate the other session, or wait.",
    ),
    "57014": (ErrorKind.UNAVAILABLE, "The statement timed out or was canceled."),
    "57P01": (ErrorKind.TRANSIENT, RETRY_LATER),  # admin_shutdown
    "57P02": (ErrorKind.TRANSIENT, RETRY_LATER),  # crash_shutdown
    "57P03": (ErrorKind.TRANSIENT, RETRY_LATER),  # cannot_connect_now
    "57P05": (ErrorKind.TRANSIENT, RETRY_LATER),  # idle_session_timeout
}
