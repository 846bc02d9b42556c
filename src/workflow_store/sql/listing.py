"""Looking at many runs, by indexes and without their JSON values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, func, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ..listing import Listing
from ..state import RunSummary, TaskStatus
from ..store import RunPage
from .models import RunRow, StepRow

__all__ = ["list_runs"]

_FEW = 1_000
"""Of a status in so few runs, all are looked up and sorted. Of one in more, a page is found
among the newest runs, one by one, before long."""

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


async def list_runs(connection: AsyncConnection, listing: Listing) -> RunPage:
    """Give a page of runs, newest first."""
    query = (
        select(*_SUMMARY)
        .where(*_conditions(listing))
        .order_by(RunRow.created_at.desc(), RunRow.run_task_id.desc())
        .limit(listing.limit + 1)
    )
    if listing.step_status is not None:
        query = query.where(await _has_step_in(connection, listing.step_status))
    found = (await connection.execute(query)).all()
    page = found[: listing.limit]
    counts = await _step_counts(connection, [row.run_task_id for row in page])
    runs = [RunSummary(**row._asdict(), step_counts=counts[row.run_task_id]) for row in page]
    if len(found) <= listing.limit:
        return RunPage(runs, None)
    return RunPage(runs, listing.cursor((runs[-1].created_at, runs[-1].run_task_id)))


def _conditions(listing: Listing) -> list[ColumnElement[bool]]:
    conditions = [getattr(RunRow, name) == value for name, value in listing.identifiers.items()]
    if listing.created_after is not None:
        conditions.append(RunRow.created_at > listing.created_after)
    if listing.created_before is not None:
        conditions.append(RunRow.created_at < listing.created_before)
    if listing.after is not None:
        # Compared as a pair, for which both databases go straight to the place in the index.
        conditions.append(tuple_(RunRow.created_at, RunRow.run_task_id) < tuple_(*listing.after))
    return conditions


async def _has_step_in(connection: AsyncConnection, status: TaskStatus) -> ColumnElement[bool]:
    """Give the condition that a run has a step in a status, for the way that is the faster."""
    # As literals, and with the condition of the index: no database concludes from a parameter
    # that a row is in an index of only some, and SQLite from nothing but the condition itself.
    in_status = StepRow.status == literal_column(f"'{status.value}'")
    if status is not TaskStatus.COMPLETED:  # of which there is no index, since most steps are
        in_status &= StepRow.status != literal_column("'completed'")
        few = select(StepRow.run_task_id).where(in_status).distinct().limit(_FEW + 1)
        runs = (await connection.scalars(few)).all()
        if len(runs) <= _FEW:
            return RunRow.run_task_id.in_(runs)
    return exists().where(StepRow.run_task_id == RunRow.run_task_id, in_status)


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
