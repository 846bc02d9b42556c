"""Checks of the schema: revision, tables and indexes, compared with the models."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Set
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, Index, MetaData, Table, inspect
from sqlalchemy.exc import SAWarning
from sqlalchemy.schema import CreateIndex, DropIndex

from .. import migrate
from ..migrate.revisions import is_newer, read_revision
from ..models import REVISION
from .findings import Examination, Finding, as_sql, bad, good, warning
from .postgresql_tables import partitioned_tables

__all__ = ["SchemaDifferences", "indexes", "revision", "tables"]

_INSTALL = f"Install a newer version of workflow-store; this one supports revision {REVISION}."
_MIGRATE = "Run: workflow-store migrate"
_RESTORE = (
    "Restore the tables from a backup, or create a new database and copy the runs to it: "
    "workflow-store copy SRC DST"
)


class SchemaDifferences(NamedTuple):
    """The differences of a database from the models.

    Attributes:
        missing_tables: the names of missing tables.
        missing: other missing or altered parts.
        extra: parts that the models do not have, and that may reject a store's writes.
        indexes: missing or altered indexes.
        partitioned: the names of partitioned tables.
    """

    missing_tables: list[str]
    missing: list[str]
    extra: list[str]
    indexes: list[Index]
    partitioned: Set[str]


async def revision(examination: Examination) -> Finding:
    examination.revision = current = await examination.connection.run_sync(
        read_revision, examination.schema
    )
    if current == REVISION:
        return good(f"{current}, the newest")
    if current is None:
        return bad("none: there are no workflow-store tables", _MIGRATE)
    if is_newer(current):
        return bad(f"{current!r}, newer than this version of workflow-store supports", _INSTALL)
    return bad(f"{current!r}, older than the required revision {REVISION}", _MIGRATE)


async def tables(examination: Examination) -> Finding:
    differences = await examination.connection.run_sync(_compare_schema, examination)
    examination.differences = differences
    missing = [f"table {name}" for name in differences.missing_tables] + differences.missing
    if missing:
        return bad(f"missing or altered: {', '.join(missing)}", _advice(examination, _RESTORE))
    if differences.extra:
        advice = "Drop these objects, or make sure that they do not reject a store's writes."
        return warning(f"unexpected: {', '.join(differences.extra)}", _advice(examination, advice))
    return good("match this version")


async def indexes(examination: Examination) -> Finding | None:
    differences = examination.differences
    if differences is None:
        return None
    if not differences.indexes:
        return None if differences.missing_tables else good("all present")
    # PostgreSQL cannot build the index of a partitioned table concurrently:
    # https://www.postgresql.org/docs/current/sql-createindex.html
    remedies = [
        index
        if cast("Table", index.table).name in differences.partitioned
        else _concurrently(index)
        for index in differences.indexes
    ]
    statements = [
        as_sql(examination, statement)
        for index in remedies
        for statement in (DropIndex(index, if_exists=True), CreateIndex(index))
    ]
    names = ", ".join(str(index.name) for index in differences.indexes)
    return bad(
        f"missing or altered, which slows down listings: {names}",
        _advice(examination, f"Run one at a time: {' '.join(statements)}"),
    )


def _concurrently(index: Index) -> Index:
    """Return a copy of an index that PostgreSQL drops and builds without blocking writers."""
    table = cast("Table", index.table)
    copy = table.to_metadata(MetaData(naming_convention=table.metadata.naming_convention))
    copied = next(other for other in copy.indexes if other.name == index.name)
    copied.dialect_options["postgresql"]["concurrently"] = True
    return copied


def _advice(examination: Examination, at_newest: str) -> str:
    """Return the advice for the newest revision, or how to get there."""
    current = examination.revision
    if current == REVISION:
        return at_newest
    return _INSTALL if current is not None and is_newer(current) else _MIGRATE


def _compare_schema(connection: Connection, examination: Examination) -> SchemaDifferences:
    """Compare the tables with the models, and ignore those of a host.

    The comparison is limited to the names of existing tables: without a schema, reflection
    also finds tables further along the search path.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    # Alembic's name for the default schema is None:
    # https://alembic.sqlalchemy.org/en/latest/autogenerate.html#controlling-what-to-be-autogenerated
    default = inspect(connection).default_schema_name
    schema = None if examination.schema == default else examination.schema
    metadata = migrate.metadata(schema)

    def include_name(name: str | None, type_: str, parents: Mapping[str, str | None]) -> bool:
        if type_ == "schema":
            return name == schema
        return type_ != "table" or name in examination.tables

    options = {"include_schemas": schema is not None, "include_name": include_name}
    with warnings.catch_warnings(action="ignore", category=SAWarning):
        # Reflection skips a host's indexes on expressions, with a warning.
        changes = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    partitioned: Set[str] = set()
    if connection.dialect.name == "postgresql":
        partitioned = partitioned_tables(connection, schema)
    differences = SchemaDifferences([], [], [], [], partitioned)
    for change in changes:
        for operation in change if isinstance(change, list) else [change]:
            _classify(differences, *operation)
    differences.indexes[:] = [
        index
        for index in differences.indexes
        if cast("Table", index.table).name in examination.tables
    ]
    for table in metadata.sorted_tables:
        if table.name in examination.tables:
            existing_key = inspect(connection).get_pk_constraint(table.name, schema=schema)
            key = [column.name for column in table.primary_key]
            valid_keys = [key]
            if table.name in partitioned:
                # Keys of a partitioned table include the column that it is partitioned by.
                valid_keys.append(["run_task_id", *key])
            if existing_key["constrained_columns"] not in valid_keys:
                differences.missing.append(f"the primary key of {table.name}")
    return differences


def _classify(differences: SchemaDifferences, kind: str, *details: Any) -> None:
    """Add one of Alembic's operations to the differences."""
    if kind == "add_table":
        differences.missing_tables.append(details[0].name)
    elif kind == "add_column":
        differences.missing.append(f"column {details[1]}.{details[2].name}")
    elif kind in {"modify_type", "modify_nullable"}:
        part = "type" if kind == "modify_type" else "NOT NULL"
        differences.missing.append(f"the {part} of {details[1]}.{details[2]}")
    elif kind in {"add_constraint", "add_fk"}:
        part = "foreign key" if kind == "add_fk" else "unique key"
        columns = ", ".join(column.name for column in details[0].columns)
        differences.missing.append(f"the {part} of {details[0].table.name} ({columns})")
    elif kind == "add_index":
        differences.indexes.append(details[0])
    elif kind == "remove_column":
        differences.extra.append(f"column {details[1]}.{details[2].name!r}")
    elif kind == "remove_constraint" or (kind == "remove_index" and details[0].unique):
        differences.extra.append(f"unique key {details[0].name!r} of {details[0].table.name}")
