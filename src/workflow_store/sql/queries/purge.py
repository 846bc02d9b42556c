"""Deletes old runs, one batch at a time."""

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

_HAS_OPEN_STEP = exists().where(
    StepRow.run_task_id == RunRow.run_task_id,
    StepRow.status.not_in(TERMINAL),
)


class Purged(NamedTuple):
    """The result of a batch: the deleted runs, and the last run examined, if any."""

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
    """Delete the oldest runs after a position, at most `batch_size`."""
    oldest = (
        select(RunRow.created_at, RunRow.run_task_id)
        .where(RunRow.created_at < created_before)
        .order_by(RunRow.created_at, RunRow.run_task_id)
        .limit(batch_size)
    )
    if after is not None:
        oldest = oldest.where(tuple_(RunRow.created_at, RunRow.run_task_id) > tuple_(*after))
    if only_terminal:
        oldest = oldest.where(~_HAS_OPEN_STEP)
    candidates = (await connection.execute(oldest)).all()
    if not candidates:
        return Purged(0, None)
    ids = [run_task_id for _, run_task_id in candidates]
    # In the order in which every write locks runs. No step is added to a locked run, so that
    # the condition of the next statement is final.
    locked = (
        select(RunRow.run_task_id)
        .where(RunRow.run_task_id.in_(ids), RunRow.created_at < created_before)
        .order_by(RunRow.run_task_id)
        .with_for_update()
    )
    ids = list((await connection.scalars(locked)).all())
    deletion = delete(RunRow).where(RunRow.run_task_id.in_(ids))
    if only_terminal:
        deletion = deletion.where(~_HAS_OPEN_STEP)
    deleted = (await connection.scalars(deletion.returning(RunRow.run_task_id))).all()
    if not dialect.enforces_foreign_keys:
        for table in (StepRow, ClaimRow):
            await connection.execute(delete(table).where(table.run_task_id.in_(deleted)))
    last_created_at, last_id = candidates[-1]
    return Purged(len(deleted), (last_created_at, last_id))
