"""What can be well or not with the tables of a workflow store, whatever the database."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Set
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    Float,
    Index,
    MetaData,
    Table,
    case,
    delete,
    exists,
    func,
    inspect,
    literal,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, DropIndex

from ...state import TaskStatus
from ..dialects import Check, StoreDialect, Subject, Told, bad, duration, good, warning
from ..migrate.revisions import is_newer
from ..models import REVISION, ClaimRow, RunRow, StepRow

__all__ = ["SchemaDifferences", "about_rows", "compared", "indexes", "revision", "tables"]

COUNTED = 1_000_000
"""Rows that are looked at, at most; what is more than that is told as "over"."""

FEW = 10_000
"""The same, of rows that there should be none of."""

OLD_S = 365 * 86_400.0

_INSTALL = f"Install a newer version of workflow-store; this one is made for {REVISION}."
_MIGRATE = "Run: workflow-store migrate"
_RESTORE = (
    "Restore them from a backup, or make a new database and bring the runs there: "
    "workflow-store copy SRC DST"
)


# -- the schema ------------------------------------------------------------------------


class SchemaDifferences(NamedTuple):
    """How a database differs from the models.

    Attributes:
        missing_tables: the names of tables that are not there.
        missing: other things that are not there or not as they should be.
        extra: things that are there and may refuse what a store writes.
        indexes: indexes that are not there or not as they should be.
        partitioned: the names of tables that consist of partitions.
    """

    missing_tables: list[str]
    missing: list[str]
    extra: list[str]
    indexes: list[Index]
    partitioned: Set[str]


def compared(
    connection: Connection,
    dialect: StoreDialect,
    metadata: MetaData,
    schema: str | None,
    there: Set[str],
) -> SchemaDifferences:
    """Compare the tables of a database with the models; a host's own tables do not count.

    The schema is None where it is the default one, which Alembic has no name for. What is there
    is told by names, since without a schema those behind it on the search path are found too.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    ours = there & {table.name for table in metadata.sorted_tables}

    def include_name(name: str | None, type_: str, parents: Mapping[str, str | None]) -> bool:
        if type_ == "schema":
            return name == schema
        return type_ != "table" or name in ours

    options = {"include_schemas": schema is not None, "include_name": include_name}
    with warnings.catch_warnings(action="ignore", category=SAWarning):
        # Of indexes on expressions, which are not ours.
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    differences = SchemaDifferences([], [], [], [], dialect.partitioned(connection, schema))
    for each in found:
        for change in each if isinstance(each, list) else [each]:
            _sort_in(differences, *change)
    gone = set(differences.missing_tables)
    differences.indexes[:] = [
        index for index in differences.indexes if index.table is not None
        and index.table.name not in gone
    ]  # fmt: skip
    for table in metadata.sorted_tables:
        if table.name in ours:
            found_key = inspect(connection).get_pk_constraint(table.name, schema=schema)
            key = [column.name for column in table.primary_key]
            keys = [key]
            if table.name in differences.partitioned:  # by the run, which each key then has
                keys.append(["run_task_id", *key])
            if found_key["constrained_columns"] not in keys:
                differences.missing.append(f"the primary key of {table.name}")
    return differences


def _sort_in(differences: SchemaDifferences, kind: str, *what: Any) -> None:
    """Put one of Alembic's operations to what it is about."""
    if kind == "add_table":
        differences.missing_tables.append(what[0].name)
    elif kind == "add_column":
        differences.missing.append(f"column {what[1]}.{what[2].name}")
    elif kind in {"modify_type", "modify_nullable"}:
        of = "type" if kind == "modify_type" else "NOT NULL"
        differences.missing.append(f"the {of} of {what[1]}.{what[2]}")
    elif kind in {"add_constraint", "add_fk"}:
        of = "foreign key" if kind == "add_fk" else "unique key"
        columns = ", ".join(column.name for column in what[0].columns)
        differences.missing.append(f"the {of} of {what[0].table.name} ({columns})")
    elif kind == "add_index":
        differences.indexes.append(what[0])
    elif kind == "remove_column":
        differences.extra.append(f"column {what[1]}.{what[2].name!r}")
    elif kind == "remove_constraint" or (kind == "remove_index" and what[0].unique):
        differences.extra.append(f"unique key {what[0].name!r} of {what[0].table.name}")


def revision(found: str | None) -> Told:
    if found == REVISION:
        return good(f"{found}, the newest")
    if found is None:
        return bad("none: there are no tables of a workflow store", _MIGRATE)
    if is_newer(found):
        return bad(f"{found!r}, newer than this version of workflow-store", _INSTALL)
    return bad(f"{found!r}, older than {REVISION}, which this version needs", _MIGRATE)


def tables(differences: SchemaDifferences, found: str | None) -> Told:
    missing = [f"table {name}" for name in differences.missing_tables] + differences.missing
    if missing:
        return bad(f"missing or altered: {', '.join(missing)}", _mending(found, _RESTORE))
    if differences.extra:
        return warning(
            f"not of this version: {', '.join(differences.extra)}",
            _mending(found, "Make sure that it refuses nothing that a store writes, or drop it."),
        )
    return good("as they should be")


def indexes(
    differences: SchemaDifferences,
    found: str | None,
    connection: AsyncConnection,
    metadata: MetaData,
) -> Told | None:
    """Tell of the indexes, in statements for the tables as that metadata places them."""
    if not differences.indexes:
        return None if differences.missing_tables else good("all are there")
    names = [str(index.name) for index in differences.indexes]
    by_name = {str(each.name): each for table in metadata.sorted_tables for each in table.indexes}
    placed = [by_name[name] for name in names]
    statements = [
        _as_text(connection, statement)
        for index in (
            index
            if cast("Table", index.table).name in differences.partitioned  # which cannot do it
            else _beside_writers(index)
            for index in placed
        )
        for statement in (DropIndex(index, if_exists=True), CreateIndex(index))
    ]
    return bad(
        f"missing or altered, which makes listings slow: {', '.join(names)}",
        _mending(found, f"Run, each by itself: {' '.join(statements)}"),
    )


def _beside_writers(index: Index) -> Index:
    """Give an index that is built, on PostgreSQL, while others write."""
    table = cast("Table", index.table)
    copy = table.to_metadata(MetaData(naming_convention=table.metadata.naming_convention))
    same = next(each for each in copy.indexes if each.name == index.name)
    same.dialect_options["postgresql"]["concurrently"] = True
    return same


def _mending(found: str | None, at_head: str) -> str:
    if found == REVISION:
        return at_head
    return _INSTALL if found is not None and is_newer(found) else _MIGRATE


# -- the rows --------------------------------------------------------------------------


def about_rows(dialect: StoreDialect, running_for_s: float) -> Mapping[str, tuple[set[str], Check]]:
    """Give the checks by name, each with the tables that it reads."""
    return {
        "oldest_run": ({"runs"}, partial(_oldest_run, dialect)),
        "orphans": ({"runs", "steps"}, _orphans),
        "abandoned_claims": ({"claims"}, partial(_abandoned_claims, dialect)),
        "running_steps": (
            {"steps", "claims"},
            partial(_running_steps, dialect, running_for_s),
        ),
    }


async def _oldest_run(dialect: StoreDialect, connection: AsyncConnection, subject: Subject) -> Told:
    count = await _count(connection, RunRow.run_task_id, most=COUNTED)
    oldest = await connection.scalar(select(RunRow.created_at).order_by(RunRow.created_at).limit(1))
    if oldest is None:
        return good("there are no runs")
    age_s = (await _now(dialect, connection) - oldest).total_seconds()
    found = f"{_counted(count, 'run', COUNTED)}, the oldest made {duration(max(0.0, age_s))} ago"
    if age_s > OLD_S:
        return warning(
            found,
            "Where old runs are not needed: workflow-store runs purge --created-before "
            f"{OLD_S / 86_400:.0f}d",
        )
    return good(found)


async def _orphans(connection: AsyncConnection, subject: Subject) -> Told:
    there = {table.name: table for table in subject.tables}
    looked_at, found, deletions = [], [], []
    for row in (StepRow, ClaimRow):
        table = there.get(row.__tablename__)
        if table is None:
            continue
        lost, looked = await _without_run(connection, row.run_task_id)
        looked_at.append(f"{looked} {table.name}")
        if lost:
            found.append(f"{lost:,} {table.name}")
            runs = select(there["runs"].c.run_task_id)
            deletions.append(
                _as_text(connection, delete(table).where(table.c.run_task_id.not_in(runs)))
            )
    if not found:
        return good(f"none among {' and '.join(looked_at)}")
    return bad(
        f"{' and '.join(found)} without a run, among {' and '.join(looked_at)}; they come back "
        "when a run is made under that id again",
        f"Keep a copy of the database, then run: {' '.join(deletions)}",
    )


async def _without_run(connection: AsyncConnection, column: Any) -> tuple[int, str]:
    """Count the rows without a run, and tell among how many."""
    count = await _count(connection, column, most=COUNTED)
    looked = f"all {count:,}"
    rows: Any = select(column)
    if count > COUNTED:
        # Both ends of the index by run; with ids that are random, a random part.
        ends = [
            select(column).order_by(order).limit(COUNTED // 2).subquery()
            for order in (column, column.desc())
        ]
        rows = union_all(*(select(end.c.run_task_id) for end in ends))
        looked = f"{COUNTED:,} of the over {COUNTED:,}"
    each = rows.subquery()
    lost = (
        select(func.count())
        .select_from(each)
        .where(~exists().where(RunRow.run_task_id == each.c.run_task_id))
    )
    return (await connection.execute(lost)).scalar_one(), looked


async def _abandoned_claims(
    dialect: StoreDialect, connection: AsyncConnection, subject: Subject
) -> Told:
    now = await _now(dialect, connection)
    lapsed = ClaimRow.expires_at <= now
    count = await _count(connection, ClaimRow.expires_at, lapsed, most=FEW)
    if not count:
        return good("no lease ran out without being released")
    first = select(ClaimRow.expires_at).where(lapsed).order_by(ClaimRow.expires_at).limit(1)
    ago_s = (now - (await connection.execute(first)).scalar_one()).total_seconds()
    return warning(
        f"{_counted(count, 'lease', FEW)} ran out and nobody took over, the first "
        f"{duration(ago_s)} ago",
        "What held them died, or hangs: let a replica call claim_abandoned_runs and resume what "
        "it gets.",
    )


async def _running_steps(
    dialect: StoreDialect, running_for_s: float, connection: AsyncConnection, subject: Subject
) -> Told:
    now = select(dialect.now()).scalar_subquery()
    since = select(dialect.now(plus_s=literal(-running_for_s, Float))).scalar_subquery()
    held = exists().where(ClaimRow.run_task_id == StepRow.run_task_id, ClaimRow.expires_at > now)
    # Both as literals, without which neither database sees the index of only some rows.
    steps = (
        select(case((held, 0), else_=1).label("left_behind"))
        .where(
            StepRow.status == literal_column(f"'{TaskStatus.RUNNING.value}'"),
            StepRow.status != literal_column(f"'{TaskStatus.COMPLETED.value}'"),
            StepRow.started_at <= since,
        )
        .limit(FEW + 1)
        .subquery()
    )
    counts = select(func.count(), func.coalesce(func.sum(steps.c.left_behind), 0))
    count, left_behind = (await connection.execute(counts.select_from(steps))).one()
    long = f"in running for over {duration(running_for_s)}"
    if not count:
        return good(f"none {long}")
    found = f"{_counted(count, 'step', FEW)} {long}"
    if not left_behind:
        return good(f"{found}, in runs that are claimed")
    return warning(
        f"{found}, {_counted(left_behind, None, FEW)} in runs that nobody holds a claim on",
        "What ran them may have died: look with workflow-store runs list --step-status running, "
        "and resume those runs.",
    )


async def _now(dialect: StoreDialect, connection: AsyncConnection) -> datetime:
    return (await connection.execute(select(dialect.now()))).scalar_one()


async def _count(
    connection: AsyncConnection, column: Any, *conditions: ColumnElement[bool], most: int
) -> int:
    """Count rows along the index of a column, though no more than one too many."""
    rows = select(column).where(*conditions).order_by(column).limit(most + 1).subquery()
    return (await connection.execute(select(func.count()).select_from(rows))).scalar_one()


def _counted(count: int, what: str | None, most: int) -> str:
    told = f"{count:,}" if count <= most else f"over {most:,}"
    return told if what is None else f"{told} {what}{'' if count == 1 else 's'}"


def _as_text(connection: AsyncConnection, statement: ClauseElement) -> str:
    return f"{statement.compile(dialect=connection.dialect)};".replace("\n", " ").strip()
