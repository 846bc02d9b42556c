"""Drive runs to their end, and take over those of owners that died: `… URL OWNER JOURNAL`.

A run's steps are there, pending; its context is the number of those that are done. Every
commit is written to the journal once it was acknowledged, straight to the file, so that no
buffer dies with the process. It ends with its input.
"""

import asyncio
import contextlib
import os
import random
import sys
import uuid
from collections.abc import Callable

from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    SqlWorkflowStore,
    TaskStatus,
)

LEASE_S = 0.6
AT_ONCE = 5


async def some_claims(
    store: ResumableWorkflowStore, owner: str, room: int, driven: set[str]
) -> list[RunClaim]:
    """Claim abandoned runs first, then runs that no worker has begun."""
    claims = await store.claim_abandoned_runs(owner=owner, lease_s=LEASE_S, limit=room)
    page = await store.list_runs(step_status=TaskStatus.PENDING, limit=1_000)
    names = {run.run_task_id for run in page.runs}.difference(
        driven, (claim.run_task_id for claim in claims)
    )
    for name in random.sample(sorted(names), len(names)):
        if len(claims) == room:
            break
        claim = await store.claim_run(name, owner=owner, lease_s=LEASE_S)
        claims += [] if claim is None else [claim]
    return claims


async def renew(store: ResumableWorkflowStore, claim: RunClaim) -> None:
    with contextlib.suppress(ClaimLostError):
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await store.renew_claim(claim)


async def drive(store: ResumableWorkflowStore, claim: RunClaim, note: Callable[..., None]) -> None:
    name, view = claim.run_task_id, store.fenced(claim)
    renewing = asyncio.create_task(renew(store, claim))
    try:
        snapshot = await store.load_run(name)
        assert snapshot is not None
        done = sum(step.status is TaskStatus.COMPLETED for step in snapshot.steps)
        assert snapshot.run.context == done
        for step in snapshot.steps[done:]:
            if random.random() < 0.01:  # as one that hangs, and goes on after its lease
                renewing.cancel()
                await asyncio.sleep(3 * LEASE_S)
            await asyncio.sleep(random.uniform(0, 0.15))
            done += 1
            step.status = TaskStatus.COMPLETED
            step.result = {"token": claim.token, "attempt": uuid.uuid4().hex}
            await view.commit_step(name, step, done)
            note("committed", name, step.step_id, claim.token, step.result["attempt"])
        await store.release_claim(claim)
    except ClaimLostError:
        note("lost", name, claim.token)
    finally:
        renewing.cancel()


async def main(url: str, owner: str, journal: str) -> None:
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(*words: object) -> None:
        os.write(file, ("/".join(map(str, words)) + "\n").encode())

    driving: dict[asyncio.Task[None], str] = {}
    async with SqlWorkflowStore(url, pool_size=4) as store:
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        while not ended.done() or driving:
            if room := AT_ONCE - len(driving):
                for claim in await some_claims(store, owner, room, set(driving.values())):
                    task = asyncio.create_task(drive(store, claim, note))
                    driving[task] = claim.run_task_id
            await asyncio.wait([ended, *driving], timeout=0.05)
            for task in [task for task in driving if task.done()]:
                del driving[task]
                await task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
