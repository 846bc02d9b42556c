"""Renews a claim while the work on its run continues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workflow_store import ClaimLostError, ResumableWorkflowStore, RunClaim, StoreUnavailableError


@asynccontextmanager
async def kept(store: ResumableWorkflowStore, claim: RunClaim) -> AsyncIterator[None]:
    """Renew a claim every third of its lease while the block runs.

    Cancels the block if the claim is lost, or if no renewal succeeded for a whole lease: from
    then on, another process may hold the run.

    Raises:
        ClaimLostError: the block was cancelled for one of these reasons.
    """
    loop = asyncio.get_running_loop()

    async def renew() -> None:
        while True:
            requested_at = loop.time()
            try:
                await store.renew_claim(claim)
            except ClaimLostError:
                deadline.reschedule(requested_at)
                return
            except StoreUnavailableError:
                pass  # the lease may hold until the next attempt
            else:
                # The database started the lease after this request, so it ends no earlier.
                deadline.reschedule(requested_at + claim.lease_s)
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
            raise  # from the work itself
        raise ClaimLostError(claim.run_task_id, claim.token) from None
