"""Deleting old runs, a batch at a time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ...pagination import Position
from ...state import TERMINAL
from ..dialects import StoreDialect
from ..models import ClaimRow, RunRow, StepRow

__all__ = ["Purged", "purge_batch"]

_GOES_ON = exists().where(
    StepRow.run_task_id == RunRow.run_task_id,
    StepRow.status.not_in(TERMINAL),
)


class Purged(NamedTuple):
    """What a batch did: how many runs are gone, and the last that it looked at, if any."""

    runs: int
    last: Position | None


async def purge_batch(
    connection: AsyncConnection,
    dialect: StoreDialect,
    *,
    created_before: datetime,
    only_terminal: bool,
    batch_size: int,
    after: Position | None,
) -> Purged:
    """Delete the oldest runs after a place, at most so many."""
    oldest = (
        select(RunRow.created_at, RunRow.run_task_id)
        .where(RunRow.created_at < created_before)
        .order_by(RunRow.created_at, RunRow.run_task_id)
        .limit(batch_size)
    )
    if after is not None:
        oldest = oldest.where(tuple_(RunRow.created_at, RunRow.run_task_id) > tuple_(*after))
    if only_terminal:
        oldest = oldest.where(~_GOES_ON)
    found = (await connection.execute(oldest)).all()
    if not found:
        return Purged(0, None)
    ids = [run_task_id for _, run_task_id in found]
    # In the order in which every write locks runs. No step is added to a locked one, so that
    # a second look, by a statement that begins after it, is the last.
    locked = (
        select(RunRow.run_task_id)
        .where(RunRow.run_task_id.in_(ids), RunRow.created_at < created_before)
        .order_by(RunRow.run_task_id)
        .with_for_update()
    )
    ids = list((await connection.scalars(locked)).all())
    going = delete(RunRow).where(RunRow.run_task_id.in_(ids))
    if only_terminal:
        going = going.where(~_GOES_ON)
    gone = (await connection.scalars(going.returning(RunRow.run_task_id))).all()
    if not dialect.enforces_foreign_keys:
        for table in (StepRow, ClaimRow):
            await connection.execute(delete(table).where(table.run_task_id.in_(gone)))
    last_created_at, last_id = found[-1]
    return Purged(len(gone), (last_created_at, last_id))
