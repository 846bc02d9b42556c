"""Keeps a claim for as long as the work on its run takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workflow_store import ClaimLostError, ResumableWorkflowStore, RunClaim, StoreUnavailableError


@asynccontextmanager
async def kept(store: ResumableWorkflowStore, claim: RunClaim) -> AsyncIterator[None]:
    """Renew a claim every third of its lease while the block runs.

    The block is cancelled when the claim is lost, and also when no renewal came through for a
    whole lease: from then on, somebody else may have the run.

    Raises:
        ClaimLostError: one of the two happened.
    """
    loop = asyncio.get_running_loop()

    async def renew() -> None:
        while True:
            asked_at = loop.time()
            try:
                await store.renew_claim(claim)
            except ClaimLostError:
                deadline.reschedule(asked_at)
                return
            except StoreUnavailableError:
                pass  # the lease may well hold until the next attempt
            else:
                # The database began the lease after it was asked to, so it ends no earlier.
                deadline.reschedule(asked_at + claim.lease_s)
            await asyncio.sleep(claim.lease_s / 3)

    try:
        async with asyncio.timeout(claim.lease_s) as deadline:
            renewing = asyncio.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
    except TimeoutError:
        if not deadline.expired():
            raise  # the work's own
        raise ClaimLostError(claim.run_task_id, claim.token) from None
