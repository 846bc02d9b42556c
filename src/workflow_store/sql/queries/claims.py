"""Taking claims: who drives which run, by the database's clock.

Each function works in a transaction of its own, on tables that are locked in the order in
which every write locks them: runs, then claims.
"""

from __future__ import annotations

import logging

from sqlalchemy import Float, delete, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import ClaimLostError, RunNotFoundError
from ...store import RunClaim
from ..dialects import StoreDialect
from ..models import ClaimRow, RunRow

__all__ = ["claim_abandoned_runs", "claim_run", "lost", "release_claim"]

_LOG = logging.getLogger(__name__)


async def claim_run(
    connection: AsyncConnection, dialect: StoreDialect, run_task_id: str, owner: str, lease_s: float
) -> RunClaim | None:
    """Claim a run, or give None while another owner's lease holds.

    Raises:
        RunNotFoundError: there is no such run.
    """
    # One claimer after the other, those of a run without a claim too, so that the tokens are
    # drawn in the order of the claims.
    run = select(RunRow.run_task_id).where(RunRow.run_task_id == run_task_id)
    if await connection.scalar(run.with_for_update(key_share=True)) is None:
        raise RunNotFoundError(run_task_id)
    holder = (
        select(ClaimRow.owner, (ClaimRow.expires_at > dialect.now()).label("holds"))
        .where(ClaimRow.run_task_id == run_task_id)
        .with_for_update()
    )
    found = (await connection.execute(holder)).one_or_none()
    if found is not None:
        if found.holds and found.owner != owner:
            return None
        await connection.execute(delete(ClaimRow).where(ClaimRow.run_task_id == run_task_id))
    return await _insert(connection, dialect, run_task_id, owner, lease_s)


async def claim_abandoned_runs(
    connection: AsyncConnection, dialect: StoreDialect, owner: str, lease_s: float, limit: int
) -> list[RunClaim]:
    """Claim runs whose lease ran out, the longest lapsed first."""
    # What somebody else has locked is being claimed, renewed or written: not abandoned.
    lapsed = (
        select(ClaimRow.run_task_id, ClaimRow.token)
        .join(RunRow, RunRow.run_task_id == ClaimRow.run_task_id)
        # Asked for once, by a subquery: no index is used for what may change from row to row.
        .where(ClaimRow.expires_at <= select(dialect.now()).scalar_subquery())
        .order_by(ClaimRow.expires_at)
        .limit(limit)
        .with_for_update(of=[ClaimRow, RunRow], skip_locked=True)
    )
    found = (await connection.execute(lapsed)).all()
    await connection.execute(
        delete(ClaimRow).where(ClaimRow.token.in_([token for _, token in found]))
    )
    return [
        await _insert(connection, dialect, run_task_id, owner, lease_s) for run_task_id, _ in found
    ]


async def release_claim(connection: AsyncConnection, claim: RunClaim) -> None:
    """Drop a claim, if it is still there."""
    await connection.execute(
        delete(ClaimRow).where(
            ClaimRow.token == claim.token, ClaimRow.run_task_id == claim.run_task_id
        )
    )


def lost(claim: RunClaim) -> ClaimLostError:
    """Give the error for a claim that is no longer its owner's."""
    _LOG.info(
        "%r lost its claim %d on run %r: it was claimed again, released or deleted",
        claim.owner, claim.token, claim.run_task_id,
    )  # fmt: skip
    return ClaimLostError(claim.run_task_id, claim.token)


async def _insert(
    connection: AsyncConnection, dialect: StoreDialect, run_task_id: str, owner: str, lease_s: float
) -> RunClaim:
    # A new row, and not an update: SQLite's AUTOINCREMENT gives tokens to new rows only.
    made = (
        await connection.execute(
            insert(ClaimRow)
            .values(
                run_task_id=run_task_id,
                owner=owner,
                expires_at=dialect.now(plus_s=literal(lease_s, Float)),
            )
            .returning(ClaimRow.token, ClaimRow.expires_at)
        )
    ).one()
    return RunClaim(run_task_id, owner, made.token, lease_s, made.expires_at)
