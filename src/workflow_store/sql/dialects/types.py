"""Column types that are spelled in each database's own way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    Text,
    cast,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, UserDefinedType

__all__ = ["Identifier", "JsonText", "Sequence", "UtcDateTime"]

# Byte order whatever the server's locale is: an upgrade of its C library must not change
# the order of an index. SQLite compares bytes by default.
Identifier = Text(collation="C").with_variant(Text(), "sqlite")

# On SQLite an INTEGER PRIMARY KEY is the rowid itself: no second index.
Sequence = BigInteger().with_variant(Integer(), "sqlite")


class JsonText(UserDefinedType[str]):
    """JSON text that comes back as it was: `json` on PostgreSQL, `TEXT` on SQLite.

    Not `jsonb`, which drops the order of keys, `-0.0`, NUL and lone surrogates; not `JSON`
    on SQLite, whose numeric affinity would turn the text `1.0` into the integer 1. The
    casts keep the text from any codec for `json` that the connection's owner may have set.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def bind_expression(self, bindvalue: Any) -> ColumnElement[str]:
        return cast(cast(type_coerce(bindvalue, Text), Text), self)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        return cast(column, Text)


@compiles(JsonText, "sqlite")
def _json_on_sqlite(type_: JsonText, compiler: Any, **_: Any) -> str:
    return "TEXT"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: `timestamptz` on PostgreSQL, ISO 8601 text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        # SQLite's text has no offset; PostgreSQL's driver answers in UTC already.
        return None if value is None else value.replace(tzinfo=UTC)
