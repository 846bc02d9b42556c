"""Column types whose SQL differs between the databases."""

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

__all__ = ["AutoIncrement", "IdentifierText", "JsonText", "UtcDateTime"]

# Bytewise order: the order of an index must not depend on the server's locale, which an
# upgrade of its C library may change (https://wiki.postgresql.org/wiki/Locale_data_changes).
# SQLite compares bytes by default (https://sqlite.org/datatype3.html#collation).
IdentifierText = Text(collation="C").with_variant(Text(), "sqlite")

# On SQLite an INTEGER PRIMARY KEY is the rowid itself: no second index
# (https://sqlite.org/lang_createtable.html#rowid).
AutoIncrement = BigInteger().with_variant(Integer(), "sqlite")


class JsonText(UserDefinedType[str]):
    """JSON text that is stored unchanged: `json` on PostgreSQL, `TEXT` on SQLite.

    Not `jsonb`, which drops the order of keys and `-0.0` and rejects NUL and lone surrogates
    (https://www.postgresql.org/docs/current/datatype-json.html); not `JSON` on SQLite, whose
    numeric affinity turns the text `1.0` into the integer 1
    (https://sqlite.org/datatype3.html#determination_of_column_affinity). The casts bypass any
    codec for `json` that the owner of the connection may have set.
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
        # SQLite's text has no offset; asyncpg returns UTC.
        return None if value is None else value.replace(tzinfo=UTC)
