"""Checks of the rows: oldest run, orphans, damage, abandoned claims and running steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    Integer,
    Text,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.types import NullType

from ... import json_codec
from ...formatting import coarse_duration, counted, duration
from ...state import TaskStatus
from ...validation import validated_identifier
from ..dialects import JsonText, StoreDialect, UtcDateTime
from ..errors import is_undecodable
from ..models import Base, ClaimRow, RunRow, StepRow
from .findings import Examination, Finding, as_sql, bad, good, warning

__all__ = ["abandoned_claims", "damaged_rows", "oldest_run", "orphans", "running_steps"]

COUNTED = 1_000_000
"""The most rows that are counted; a larger number is reported as "over" this one."""

FEW = 10_000
"""The same for rows that a healthy database does not have."""

OLD_S = 365 * 86_400.0

DECODED = 10_000
"""The most rows of a table that are decoded, the newest first, until `DECODING_S` have passed."""

DECODING_S = 2.0

DECODED_TEXT = 100_000
"""The most characters of a JSON value that is decoded."""

_CHUNK = 100
_UNDECODABLE = object()


async def oldest_run(examination: Examination) -> Finding | None:
    if "runs" not in examination.tables:
        return None
    count = await _count(examination, RunRow.run_task_id, limit=COUNTED)
    oldest = await examination.connection.scalar(
        select(RunRow.created_at).order_by(RunRow.created_at).limit(1)
    )
    if oldest is None:
        return good("no runs")
    age_s = max(0.0, (await _now(examination) - oldest).total_seconds())
    age = f"{counted(count, 'run', COUNTED)}, the oldest created {coarse_duration(age_s)} ago"
    if age_s > OLD_S:
        return warning(
            age,
            "If old runs are not needed, run: workflow-store runs purge --created-before "
            f"{OLD_S / 86_400:.0f}d",
        )
    return good(age)


async def orphans(examination: Examination) -> Finding | None:
    if not {"runs", "steps"} <= set(examination.tables):
        return None
    checked, orphaned, deletions = [], [], []
    for row in (StepRow, ClaimRow):
        name = row.__tablename__
        if name not in examination.tables:
            continue
        noun = name.removesuffix("s")
        count, scope = await _count_without_run(examination, row.run_task_id, noun)
        checked.append(scope)
        if count:
            orphaned.append(counted(count, noun))
            deletion = delete(row).where(row.run_task_id.not_in(select(RunRow.run_task_id)))
            deletions.append(as_sql(examination, deletion))
    if not orphaned:
        return good(f"none (checked {' and '.join(checked)})")
    return bad(
        f"{' and '.join(orphaned)} without a run (checked {' and '.join(checked)}); they will "
        "reappear if a run with the same ID is created",
        f"Back up the database, then run: {' '.join(deletions)}",
    )


async def _count_without_run(examination: Examination, column: Any, noun: str) -> tuple[int, str]:
    """Return how many rows have no run, and how many were checked."""
    count = await _count(examination, column, limit=COUNTED)
    scope = counted(count, noun)
    rows: Any = select(column)
    if count > COUNTED:
        # Both ends of the index on the run's id: a random sample if ids are random.
        ends = [
            select(column).order_by(order).limit(COUNTED // 2).subquery()
            for order in (column, column.desc())
        ]
        rows = union_all(*(select(end.c.run_task_id) for end in ends))
        scope = f"{COUNTED:,} of {counted(count, noun, COUNTED)}"
    sample = rows.subquery()
    without_run = ~exists().where(RunRow.run_task_id == sample.c.run_task_id)
    query = select(func.count()).select_from(sample).where(without_run)
    return (await examination.connection.execute(query)).scalar_one(), scope


async def damaged_rows(examination: Examination) -> Finding | None:
    until = time.monotonic() + DECODING_S
    checked, damaged = [], []
    for row, newest_first in (
        (RunRow, (RunRow.created_at.desc(), RunRow.run_task_id.desc())),
        (StepRow, (StepRow.seq.desc(),)),
        (ClaimRow, (ClaimRow.token.desc(),)),
    ):
        name = row.__tablename__
        if name not in examination.tables:
            continue
        columns: list[Column[Any]] = list(Base.metadata.tables[name].columns)
        query = select(*map(_undecoded, columns)).order_by(*newest_first)
        count = 0
        while count < DECODED and (not count or time.monotonic() < until):
            values = await _read(examination, query, count, _CHUNK)
            for one in values:
                named = dict(zip(columns, one, strict=True))
                place = _place(name, {column.name: value for column, value in named.items()})
                damaged += [
                    f"{column.name} of {place}"
                    for column, value in named.items()
                    if not _is_stored_value(examination.dialect, column, value)
                ]
            count += len(values)
            if len(values) < _CHUNK:
                break
        checked.append(counted(count, name.removesuffix("s")))
    if not checked:
        return None
    scope = f"checked the newest {', '.join(checked)}"
    if not damaged:
        return good(f"none ({scope})")
    return bad(
        f"{counted(len(damaged), 'value')} that no store wrote, including {damaged[0]} ({scope})",
        "Fix the rows, restore them from a backup, or delete the runs: workflow-store runs delete",
    )


def _undecoded(column: Column[Any]) -> ColumnElement[Any]:
    """Return what selects a column as the driver returns it, large values as null."""
    if isinstance(column.type, UtcDateTime):
        return type_coerce(column, NullType)
    if isinstance(column.type, JsonText):
        small = func.length(cast(column, Text)) <= DECODED_TEXT
        return case((small, column)).label(column.name)
    return column


async def _read(
    examination: Examination, query: Any, first: int, count: int
) -> list[Sequence[Any]]:
    """Return rows of a query, with `_UNDECODABLE` for each value that the driver rejects."""
    part = query.offset(first).limit(count)
    try:
        return list((await examination.connection.execute(part)).all())
    except Exception as error:
        if not is_undecodable(error):
            raise
    if count > 1:
        rows = [await _read(examination, query, first + number, 1) for number in range(count)]
        return [row for one in rows for row in one]
    columns = list(query.selected_columns)
    if len(columns) == 1:
        return [(_UNDECODABLE,)]
    parts = [
        await _read(examination, query.with_only_columns(column), first, 1) for column in columns
    ]
    return [[row[0] for row, *_ in parts]]


def _place(table: str, values: dict[str, Any]) -> str:
    """Return the name of a row, for people."""
    run, step = (
        "with an unreadable ID" if value is _UNDECODABLE else f"{value!r:.100}"
        for value in (values["run_task_id"], values.get("step_id"))
    )
    noun = {"runs": "run", "steps": f"step {step} of run", "claims": "the claim of run"}
    return f"{noun[table]} {run}"


def _is_stored_value(dialect: StoreDialect, column: Column[Any], value: Any) -> bool:
    """Return whether a store can have written a value of a column."""
    if value is None or value is _UNDECODABLE:
        return value is None  # or large; the database itself checks NOT NULL
    try:
        if isinstance(column.type, UtcDateTime):
            dialect.decode_datetime(value)
        elif isinstance(column.type, JsonText):
            expected = {"definition": dict, "error": str}.get(column.name, object)
            return isinstance(json_codec.decode_stored(value), expected)
        elif isinstance(column.type, Integer):
            return isinstance(value, int)
        elif column.name == "status":
            TaskStatus(value)
        else:
            validated_identifier(value, name=column.name)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


async def abandoned_claims(examination: Examination) -> Finding | None:
    if "claims" not in examination.tables:
        return None
    now = await _now(examination)
    expired = ClaimRow.expires_at <= now
    count = await _count(examination, ClaimRow.expires_at, expired, limit=FEW)
    if not count:
        return good("no expired leases waiting to be released")
    first = select(ClaimRow.expires_at).where(expired).order_by(ClaimRow.expires_at).limit(1)
    first_expiry = (await examination.connection.execute(first)).scalar_one()
    age = coarse_duration((now - first_expiry).total_seconds())
    return warning(
        f"{counted(count, 'lease', FEW)} not taken over after expiring, the first {age} ago",
        "The processes that held them have died or are hung: call claim_abandoned_runs in "
        "another process, and resume the runs that it returns.",
    )


async def running_steps(examination: Examination) -> Finding | None:
    if not {"steps", "claims"} <= set(examination.tables):
        return None
    now, limit_s = examination.dialect.now, examination.running_for_s
    claimed = exists().where(
        ClaimRow.run_task_id == StepRow.run_task_id,
        ClaimRow.expires_at > select(now()).scalar_subquery(),
    )
    # Literals: with parameters, neither database uses the partial index.
    # https://www.sqlite.org/partialindex.html
    # https://www.postgresql.org/docs/current/indexes-partial.html
    steps = (
        select(case((claimed, 0), else_=1).label("unclaimed"))
        .where(
            StepRow.status == literal_column(f"'{TaskStatus.RUNNING.value}'"),
            StepRow.status != literal_column(f"'{TaskStatus.COMPLETED.value}'"),
            StepRow.started_at <= select(now(plus_s=literal(-limit_s, Float))).scalar_subquery(),
        )
        .limit(FEW + 1)
        .subquery()
    )
    query = select(func.count(), func.coalesce(func.sum(steps.c.unclaimed), 0)).select_from(steps)
    count, unclaimed = (await examination.connection.execute(query)).one()
    running = f"in status running for over {duration(limit_s, brief=True)}"
    if not count:
        return good(f"none {running}")
    if not unclaimed:
        return good(f"{counted(count, 'step', FEW)} {running}, all covered by claims")
    return warning(
        f"{counted(count, 'step', FEW)} {running}, including "
        f"{counted(unclaimed, 'step', FEW)} not covered by a claim",
        "The responsible processes may have died: find the runs with workflow-store runs list "
        "--step-status running, and resume them.",
    )


async def _now(examination: Examination) -> datetime:
    """Return the time of the database's clock."""
    return (await examination.connection.execute(select(examination.dialect.now()))).scalar_one()


async def _count(
    examination: Examination, column: Any, *conditions: ColumnElement[bool], limit: int
) -> int:
    """Count rows along the index of a column, up to one more than a limit."""
    rows = select(column).where(*conditions).order_by(column).limit(limit + 1).subquery()
    query = select(func.count()).select_from(rows)
    return (await examination.connection.execute(query)).scalar_one()
