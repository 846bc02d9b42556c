"""Looking at many runs, by indexes and without their JSON values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ...pagination import PageRequest
from ...state import RunSummary, TaskStatus
from ...store import RunPage
from ..models import RunRow, StepRow

__all__ = ["list_runs"]

_FEW = 1_000
"""Of so few steps in a status, all runs are looked up and sorted."""

_NEAR = 10_000
"""Among so many of the newest runs, those with a step in a status are found one by one."""

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


async def list_runs(connection: AsyncConnection, listing: PageRequest) -> RunPage:
    """Give a page of runs, newest first."""
    query = (
        select(*_SUMMARY)
        .where(*_conditions(listing))
        .order_by(RunRow.created_at.desc(), RunRow.run_task_id.desc())
        .limit(listing.limit + 1)
    )
    if listing.step_status is None:
        found = await _rows(connection, query)
    else:
        found = await _with_step_in(connection, query, listing.step_status, listing.limit)
    page = found[: listing.limit]
    counts = await _step_counts(connection, [row.run_task_id for row in page])
    runs = [RunSummary(**row._asdict(), step_counts=counts[row.run_task_id]) for row in page]
    if len(found) <= listing.limit:
        return RunPage(runs, None)
    return RunPage(runs, listing.cursor((runs[-1].created_at, runs[-1].run_task_id)))


def _conditions(listing: PageRequest) -> list[ColumnElement[bool]]:
    conditions = [getattr(RunRow, name) == value for name, value in listing.identifiers.items()]
    if listing.created_after is not None:
        conditions.append(RunRow.created_at > listing.created_after)
    # A cursor says it more closely: with both, SQLite goes to the place of the filter.
    before = listing.created_before
    if before is not None and (listing.after is None or listing.after[0] >= before):
        conditions.append(RunRow.created_at < before)
    if listing.after is not None:
        # Compared as a pair, for which both databases go straight to the place in the index.
        conditions.append(tuple_(RunRow.created_at, RunRow.run_task_id) < tuple_(*listing.after))
    return conditions


async def _with_step_in(
    connection: AsyncConnection, query: Any, status: TaskStatus, limit: int
) -> list[Any]:
    """Give the runs of a query that have a step in a status, by the way that is fast for it.

    No single statement is: where many runs have one, sorting them all takes too long, and
    where they are few or old, looking at one run after the other does.
    """
    # As literals, and with the condition of the index: no database concludes from a parameter
    # that a row is in an index of only some, and SQLite from nothing but the condition itself.
    in_status = StepRow.status == literal_column(f"'{status.value}'")
    if status is not TaskStatus.COMPLETED:  # of which there is no index, since most steps are
        in_status &= StepRow.status != literal_column("'completed'")
    # Not EXISTS, which PostgreSQL joins by an estimate that is a tenth of what it finds.
    has_one = (
        select(literal_column("1"))
        .where(StepRow.run_task_id == RunRow.run_task_id, in_status)
        .limit(1)
        .correlate(RunRow)
        .scalar_subquery()
        .is_not(None)
    )
    if status is TaskStatus.COMPLETED:
        return await _rows(connection, query.where(has_one))
    of_runs = select(StepRow.run_task_id).where(in_status)
    if await connection.scalar(of_runs.offset(_FEW).limit(1)) is None:
        few = (await connection.scalars(of_runs)).all()
        return await _rows(connection, query.where(RunRow.run_task_id.in_(few)))
    near = query.where(has_one)
    place = tuple_(RunRow.created_at, RunRow.run_task_id)
    furthest = query.with_only_columns(RunRow.created_at, RunRow.run_task_id)
    last = (await connection.execute(furthest.offset(_NEAR).limit(1))).one_or_none()
    if last is not None:
        near = near.where(place >= tuple_(*last))
    found = await _rows(connection, near)
    if last is None or len(found) > limit:
        return found
    all_of_them = of_runs.distinct().cte("all_of_them").prefix_with("MATERIALIZED")
    query = query.join(all_of_them, all_of_them.c.run_task_id == RunRow.run_task_id)
    return await _rows(connection, query)


async def _rows(connection: AsyncConnection, query: Any) -> list[Any]:
    return list((await connection.execute(query)).all())


async def _step_counts(
    connection: AsyncConnection, runs: Sequence[str]
) -> dict[str, Counter[TaskStatus]]:
    counts: dict[str, Counter[TaskStatus]] = defaultdict(Counter)
    if runs:
        query = (
            select(StepRow.run_task_id, StepRow.status, func.count())
            .where(StepRow.run_task_id.in_(runs))
            .group_by(StepRow.run_task_id, StepRow.status)
        )
        for run_task_id, status, count in await connection.execute(query):
            counts[run_task_id][TaskStatus(status)] = count
    return counts
