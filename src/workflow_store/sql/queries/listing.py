"""Pages of runs, by index and without their JSON values."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import WorkflowStoreError
from ...pagination import PageRequest
from ...state import RunSummary, TaskStatus
from ...store import RunPage
from ..errors import corrupt_row_error, is_undecodable
from ..models import RunRow, StepRow

__all__ = ["list_runs"]

_FEW = 1_000
"""If at most this many steps have a status, all of their runs are looked up and sorted."""

_NEWEST = 10_000
"""How many of the newest runs are probed one by one for a step in a status."""

_SUMMARY = (
    RunRow.run_task_id,
    RunRow.agent_id,
    RunRow.thread_id,
    RunRow.user_id,
    RunRow.workspace_id,
    RunRow.entry_point,
    RunRow.created_at,
    RunRow.updated_at,
)


async def list_runs(connection: AsyncConnection, request: PageRequest) -> RunPage:
    """Return a page of runs, newest first."""
    query = (
        select(*_SUMMARY)
        .where(*_conditions(request))
        .order_by(RunRow.created_at.desc(), RunRow.run_task_id.desc())
        .limit(request.limit + 1)
    )
    if request.step_status is None:
        rows = await _rows(connection, query)
    else:
        rows = await _with_step_in(connection, query, request.step_status, request.limit)
    page = rows[: request.limit]
    counts = await _step_counts(connection, [row.run_task_id for row in page])
    runs = [_summary(row, counts[row.run_task_id]) for row in page]
    if len(rows) <= request.limit:
        return RunPage(runs, None)
    return RunPage(runs, request.cursor((runs[-1].created_at, runs[-1].run_task_id)))


def _summary(row: Any, counts: Counter[TaskStatus]) -> RunSummary:
    try:
        return RunSummary(**row._asdict(), step_counts=counts)
    except ValueError as error:
        raise corrupt_row_error(f"run {row.run_task_id!r}") from error


def _conditions(request: PageRequest) -> list[ColumnElement[bool]]:
    conditions = [getattr(RunRow, name) == value for name, value in request.identifiers.items()]
    if request.created_after is not None:
        conditions.append(RunRow.created_at > request.created_after)
    # A cursor is the stricter bound: with both, SQLite would seek to that of the filter.
    before = request.created_before
    if before is not None and (request.after is None or request.after[0] >= before):
        conditions.append(RunRow.created_at < before)
    if request.after is not None:
        # A row comparison, for which both databases seek in the index
        # (https://sqlite.org/rowvalue.html, https://use-the-index-luke.com/no-offset).
        conditions.append(tuple_(RunRow.created_at, RunRow.run_task_id) < tuple_(*request.after))
    return conditions


async def _with_step_in(
    connection: AsyncConnection, query: Any, status: TaskStatus, limit: int
) -> list[Any]:
    """Return the runs of a query that have a step in a status, by the fastest plan.

    No single statement is always fast: if many runs match, sorting all of them takes too
    long; if few or only old ones match, probing one run after the other does.
    """
    # Literals, and the very condition of the index: neither database uses a partial index for
    # a parameter, and SQLite only for its exact condition (https://sqlite.org/partialindex.html).
    in_status = StepRow.status == literal_column(f"'{status.value}'")
    if status is not TaskStatus.COMPLETED:  # not in the index, since most steps are
        in_status &= StepRow.status != literal_column("'completed'")
    # Not EXISTS, which PostgreSQL turns into a join by an estimate ten times too low.
    has_step = (
        select(literal_column("1"))
        .where(StepRow.run_task_id == RunRow.run_task_id, in_status)
        .limit(1)
        .correlate(RunRow)
        .scalar_subquery()
        .is_not(None)
    )
    if status is TaskStatus.COMPLETED:
        return await _rows(connection, query.where(has_step))
    of_runs = select(StepRow.run_task_id).where(in_status)
    if await connection.scalar(of_runs.offset(_FEW).limit(1)) is None:
        few = (await connection.scalars(of_runs)).all()
        return await _rows(connection, query.where(RunRow.run_task_id.in_(few)))
    newest = query.where(has_step)
    position = tuple_(RunRow.created_at, RunRow.run_task_id)
    positions = query.with_only_columns(RunRow.created_at, RunRow.run_task_id)
    last = await _rows(connection, positions.limit(1), offset=_NEWEST)
    if last:
        newest = newest.where(position >= tuple_(*last[0]))
    rows = await _rows(connection, newest)
    if not last or len(rows) > limit:
        return rows
    matching = of_runs.distinct().cte("matching").prefix_with("MATERIALIZED")
    query = query.join(matching, matching.c.run_task_id == RunRow.run_task_id)
    return await _rows(connection, query)


async def _rows(connection: AsyncConnection, query: Any, offset: int = 0) -> list[Any]:
    try:
        return list((await connection.execute(query.offset(offset) if offset else query)).all())
    except Exception as error:
        if is_undecodable(error):
            raise await _damage(connection, query.limit(1), offset) from error
        raise


async def _damage(connection: AsyncConnection, query: Any, offset: int) -> WorkflowStoreError:
    """Return the error that names the first run of a query that cannot be decoded."""
    for place in itertools.count(offset):
        one = query.offset(place)
        try:
            if not (await connection.execute(one)).all():
                break
        except Exception as error:
            if not is_undecodable(error):
                raise
            return corrupt_row_error(await _name(connection, one, place))
    return corrupt_row_error("a run of the page")  # not reached: all is read in one snapshot


async def _name(connection: AsyncConnection, query: Any, place: int) -> str:
    try:
        return f"run {await connection.scalar(query.with_only_columns(RunRow.run_task_id))!r}"
    except Exception as error:
        if is_undecodable(error):
            return f"the run at place {place + 1} of the page"
        raise


async def _step_counts(
    connection: AsyncConnection, runs: Sequence[str]
) -> dict[str, Counter[TaskStatus]]:
    counts: dict[str, Counter[TaskStatus]] = defaultdict(Counter)
    query = (
        select(StepRow.run_task_id, StepRow.status, func.count())
        .where(StepRow.run_task_id.in_(runs))
        .group_by(StepRow.run_task_id, StepRow.status)
    )
    try:
        for run_task_id, status, count in await connection.execute(query) if runs else ():
            counts[run_task_id][TaskStatus(status)] = count
    except Exception as error:
        if not is_undecodable(error):
            raise
        for run_task_id in runs if len(runs) > 1 else ():
            await _step_counts(connection, [run_task_id])
        raise corrupt_row_error(f"a step of run {runs[0]!r}") from error
    return counts
