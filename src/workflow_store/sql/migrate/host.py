"""What keeps the autogenerate of a host's Alembic from dropping our tables."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.schema import SchemaItem

from ..models import VERSION_TABLE, Base

__all__ = ["include_name", "include_object"]

_TABLES = frozenset({*Base.metadata.tables, VERSION_TABLE})


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],
    *,
    schema: str | None = None,
) -> bool:
    """Tell Alembic's autogenerate to look past the tables of this package.

    For a host application that keeps our tables in its own database: hand it to
    `context.configure(include_name=…)` in the host's `env.py`. With a schema of our own,
    hand `functools.partial(include_name, schema="…")`.
    """
    return not (type_ == "table" and name in _TABLES and parent_names.get("schema_name") == schema)


def include_object(
    object_: SchemaItem,
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: SchemaItem | None,
    *,
    schema: str | None = None,
) -> bool:
    """Do the same as `include_name`, for a host that uses `include_object`."""
    return not (
        type_ == "table"
        and reflected
        and compare_to is None
        and name in _TABLES
        and getattr(object_, "schema", None) == schema
    )
