"""The options of a store's own engine."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict, get_type_hints

from annotated_types import Gt

__all__ = ["EngineOptions", "validated_options"]


class EngineOptions(TypedDict, total=False):
    """The options of a store's own engine. Options of the other database have no effect.

    Attributes:
        pool_size: the maximum number of connections; 10 by default. SQLite in memory has one.
        pool_timeout_s: seconds to wait for a free connection; 30 by default.
        synchronous: SQLite only. With `"FULL"`, the default, a commit survives loss of power;
            with `"NORMAL"` the last commits may be lost then, but the file stays consistent.
            See https://www.sqlite.org/pragma.html#pragma_synchronous.
        busy_timeout_s: SQLite only. Seconds to wait for another process's write; 30 by
            default.
        connect_timeout_s: PostgreSQL only. Seconds to wait for a connection; 10 by default.
        statement_timeout_s: PostgreSQL only. Seconds to wait for a statement, and on an engine
            of the caller for a connection; 30 by default.
        transaction_pooler: PostgreSQL only. True behind a connection pooler in transaction
            mode, such as PgBouncer: no prepared statement outlives its transaction.
    """

    pool_size: Annotated[int, Gt(0)]
    pool_timeout_s: Annotated[float, Gt(0)]
    synchronous: Literal["FULL", "NORMAL"]
    busy_timeout_s: Annotated[float, Gt(0)]
    connect_timeout_s: Annotated[float, Gt(0)]
    statement_timeout_s: Annotated[float, Gt(0)]
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
    """Return the options with defaults for those that are missing.

    Raises:
        ValueError: an option is unknown or out of range.
    """
    for name, value in options.items():
        if name not in _DEFAULTS:
            raise ValueError(f"unknown option {name!r}; supported options: {', '.join(_DEFAULTS)}")
        _validate(name, value)
    return {**_DEFAULTS, **options}


def _validate(name: str, value: object) -> None:
    from pydantic import TypeAdapter, ValidationError  # 0.15 s; few callers set an option

    rule = get_type_hints(EngineOptions, include_extras=True)[name]
    try:
        TypeAdapter(rule).validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(reason.replace("Input should", f"{name}={value!r} must", 1)) from None
