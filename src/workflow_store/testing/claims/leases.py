"""Claims for tests: held, expired, and lost in every way.

A lease that must hold during a test is an hour long. A lease that must expire is short, and the
test waits longer than it: a busy machine makes the tests slower, and never makes them fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...store import ResumableWorkflowStore, RunClaim
from ..samples import a_run, a_step

__all__ = ["LONG_S", "LOST", "WRITES", "Leases", "a_claim", "state_of"]

LONG_S = 3_600.0

WRITES: dict[str, Callable[[ResumableWorkflowStore], Awaitable[None]]] = {
    "create_run": lambda store: store.create_run(a_run(input="fenced")),
    "update_context": lambda store: store.update_context("run", "fenced"),
    "upsert_step": lambda store: store.upsert_step("run", a_step(result="fenced")),
    "upsert_step of a new one": lambda store: store.upsert_step("run", a_step("fenced")),
    "commit_step": lambda store: store.commit_step("run", a_step(result="fenced"), "fenced"),
    "commit_step of a new one": lambda store: store.commit_step("run", a_step("fenced"), "fenced"),
    "delete_run": lambda store: store.delete_run("run"),
}
"""A call of each write that a fence checks. The last one deletes the run."""


async def a_claim(
    store: ResumableWorkflowStore,
    run_task_id: str = "run",
    *,
    owner: str = "me",
    lease_s: float = LONG_S,
) -> RunClaim:
    claim = await store.claim_run(run_task_id, owner=owner, lease_s=lease_s)
    assert claim is not None
    return claim


async def state_of(store: ResumableWorkflowStore, run_task_id: str = "run") -> Any:
    return await store.get_run(run_task_id), await store.list_steps(run_task_id)


class Leases:
    """Settings and helpers of the tests with leases that expire.

    Attributes:
        short_lease_s: the length of a lease that is to expire, in seconds.
        expiry_margin_s: how much longer than that a test waits, for clocks that are coarse or
            run slower than this process's.
    """

    short_lease_s: float = 0.02
    expiry_margin_s: float = 0.1

    async def wait_for_expiry(self) -> None:
        """Wait until every short lease that was granted before has expired."""
        await asyncio.sleep(self.short_lease_s + self.expiry_margin_s)

    async def expired_claims(
        self, store: ResumableWorkflowStore, *run_task_ids: str, owner: str = "me"
    ) -> list[RunClaim]:
        """Claim these runs, by default "run", and wait until the leases have expired."""
        claims = [
            await a_claim(store, run_task_id, owner=owner, lease_s=self.short_lease_s)
            for run_task_id in run_task_ids or ("run",)
        ]
        await self.wait_for_expiry()
        return claims

    async def lost_claim(self, store: ResumableWorkflowStore, way: str) -> RunClaim:
        """Claim "run" as "me", lose the claim in one of the ways of `LOST`, and return it."""
        return await LOST[way](self, store)


async def _taken_over(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await leases.expired_claims(store)
    await a_claim(store, owner="other")
    return claim


async def _taken_over_as_abandoned(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await leases.expired_claims(store)
    assert await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
    return claim


async def _taken_over_and_released(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await leases.expired_claims(store)
    await store.release_claim(await a_claim(store, owner="other"))
    return claim


async def _claimed_anew(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await a_claim(store)
    return claim


async def _released(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await store.release_claim(claim)
    return claim


async def _deleted(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await store.delete_run("run")
    return claim


async def _created_again_after_deletion(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    claim = await _deleted(leases, store)
    await store.create_run(a_run())
    return claim


async def _claimed_again_after_deletion(leases: Leases, store: ResumableWorkflowStore) -> RunClaim:
    claim = await _created_again_after_deletion(leases, store)
    await a_claim(store)
    return claim


LOST: dict[str, Callable[[Leases, ResumableWorkflowStore], Awaitable[RunClaim]]] = {
    "taken over": _taken_over,
    "taken over as abandoned": _taken_over_as_abandoned,
    "taken over and released": _taken_over_and_released,
    "claimed anew": _claimed_anew,
    "released": _released,
    "deleted": _deleted,
    "created again after deletion": _created_again_after_deletion,
    "claimed again after deletion": _claimed_again_after_deletion,
}
"""Claims the run "run", which exists, as "me"; loses the claim in one way; returns it."""
