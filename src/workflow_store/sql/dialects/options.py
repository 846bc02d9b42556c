"""How a store's own engine is made."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["EngineOptions", "validated_options"]


class EngineOptions(TypedDict, total=False):
    """How the store's own engine is made; an option of the other database has no effect.

    Attributes:
        pool_size: connections at most; 10 by default. In memory, SQLite has one.
        pool_timeout_s: seconds to wait for a free connection; 30 by default.
        synchronous: SQLite only. `"FULL"`, the default, survives loss of power; with
            `"NORMAL"` the last commits may be lost then, though never the file.
        busy_timeout_s: SQLite only. Seconds to wait for another process's write; 30 by
            default.
        connect_timeout_s: PostgreSQL only. Seconds to wait for a connection; 10 by default.
        statement_timeout_s: PostgreSQL only. Seconds to wait for a statement; 30 by
            default.
        transaction_pooler: PostgreSQL only. True behind a pooler in transaction mode, such
            as pgbouncer: no prepared statement outlives its transaction.
    """

    pool_size: int
    pool_timeout_s: float
    synchronous: Literal["FULL", "NORMAL"]
    busy_timeout_s: float
    connect_timeout_s: float
    statement_timeout_s: float
    transaction_pooler: bool


_DEFAULTS: EngineOptions = {
    "pool_size": 10,
    "pool_timeout_s": 30.0,
    "synchronous": "FULL",
    "busy_timeout_s": 30.0,
    "connect_timeout_s": 10.0,
    "statement_timeout_s": 30.0,
    "transaction_pooler": False,
}


def validated_options(options: EngineOptions) -> EngineOptions:
    """Add the defaults.

    Raises:
        ValueError: an option is unknown or out of range.
    """
    for name, value in options.items():
        if name not in _DEFAULTS:
            raise ValueError(f"there is no option {name!r}; there are {', '.join(_DEFAULTS)}")
        if name == "synchronous":
            valid = value in ("FULL", "NORMAL")
        elif name == "transaction_pooler":
            valid = isinstance(value, bool)
        else:
            number = int if name == "pool_size" else int | float
            valid = isinstance(value, number) and not isinstance(value, bool) and value > 0
        if not valid:
            raise ValueError(f"{name}={value!r} is out of range")
    return {**_DEFAULTS, **options}
