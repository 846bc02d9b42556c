"""Claim, take over and release runs, by the database's clock.

Each function runs in a transaction of its own and locks in the order of every write: runs,
then claims.
"""

from __future__ import annotations

import logging
from typing import NoReturn

from sqlalchemy import Float, delete, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import ClaimLostError, RunNotFoundError
from ...store import RunClaim
from ..dialects import StoreDialect
from ..models import ClaimRow, RunRow

__all__ = ["claim_abandoned_runs", "claim_run", "raise_claim_lost", "release_claim"]

_LOG = logging.getLogger("workflow_store.claims")


async def claim_run(
    connection: AsyncConnection, dialect: StoreDialect, run_task_id: str, owner: str, lease_s: float
) -> RunClaim | None:
    """Claim a run, or return None while another owner's lease holds.

    Raises:
        RunNotFoundError: the run does not exist.
    """
    # The lock on the run serializes claims, also of a run without a claim, so that tokens are
    # drawn in the order of the claims.
    run = select(RunRow.run_task_id).where(RunRow.run_task_id == run_task_id)
    if await connection.scalar(run.with_for_update(key_share=True)) is None:
        raise RunNotFoundError(run_task_id)
    holder = (
        select(ClaimRow.owner, (ClaimRow.expires_at > dialect.now()).label("is_held"))
        .where(ClaimRow.run_task_id == run_task_id)
        .with_for_update()
    )
    claim = (await connection.execute(holder)).one_or_none()
    if claim is not None:
        if claim.is_held and claim.owner != owner:
            return None
        await connection.execute(delete(ClaimRow).where(ClaimRow.run_task_id == run_task_id))
    return await _insert(connection, dialect, run_task_id, owner, lease_s)


async def claim_abandoned_runs(
    connection: AsyncConnection, dialect: StoreDialect, owner: str, lease_s: float, limit: int
) -> list[RunClaim]:
    """Claim runs whose lease expired, those that expired first."""
    # A locked claim or run is being claimed, renewed or written, so it is skipped.
    expired = (
        select(ClaimRow.run_task_id, ClaimRow.token)
        .join(RunRow, RunRow.run_task_id == ClaimRow.run_task_id)
        # As a subquery: PostgreSQL uses no index for a volatile function
        # (https://www.postgresql.org/docs/current/xfunc-volatility.html).
        .where(ClaimRow.expires_at <= select(dialect.now()).scalar_subquery())
        .order_by(ClaimRow.expires_at)
        .limit(limit)
        .with_for_update(of=[ClaimRow, RunRow], skip_locked=True)
    )
    claims = (await connection.execute(expired)).all()
    await connection.execute(
        delete(ClaimRow).where(ClaimRow.token.in_([token for _, token in claims]))
    )
    return [
        await _insert(connection, dialect, run_task_id, owner, lease_s) for run_task_id, _ in claims
    ]


async def release_claim(connection: AsyncConnection, claim: RunClaim) -> None:
    """Delete a claim, if it still exists."""
    await connection.execute(
        delete(ClaimRow).where(
            ClaimRow.token == claim.token, ClaimRow.run_task_id == claim.run_task_id
        )
    )


def raise_claim_lost(claim: RunClaim) -> NoReturn:
    """Log that a claim was lost, and raise `ClaimLostError`."""
    _LOG.info(
        "%r lost claim %d on run %r: the run was claimed again, released or deleted",
        claim.owner, claim.token, claim.run_task_id,
    )  # fmt: skip
    raise ClaimLostError(claim.run_task_id, claim.token)


async def _insert(
    connection: AsyncConnection, dialect: StoreDialect, run_task_id: str, owner: str, lease_s: float
) -> RunClaim:
    # Not an update: SQLite's AUTOINCREMENT draws tokens for new rows only.
    claim = (
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
    return RunClaim(run_task_id, owner, claim.token, lease_s, claim.expires_at)
