"""Claims for tests: held, lapsed, and lost in every way.

A lease that must hold during a test is an hour; one that must lapse is short, and the test
waits well beyond it. So a slow machine makes the tests slower, and never fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...store import ResumableWorkflowStore, RunClaim
from ..samples import a_run, a_step

__all__ = ["LONG_S", "LOST", "SHORT_S", "WRITES", "a_claim", "lapsed_claims", "state_of"]

LONG_S = 3_600.0
SHORT_S = 0.02

WRITES: dict[str, Callable[[ResumableWorkflowStore], Awaitable[None]]] = {
    "create_run": lambda store: store.create_run(a_run(input="fenced")),
    "update_context": lambda store: store.update_context("run", "fenced"),
    "upsert_step": lambda store: store.upsert_step("run", a_step(result="fenced")),
    "upsert_step of a new one": lambda store: store.upsert_step("run", a_step("fenced")),
    "commit_step": lambda store: store.commit_step("run", a_step(result="fenced"), "fenced"),
    "commit_step of a new one": lambda store: store.commit_step("run", a_step("fenced"), "fenced"),
    "delete_run": lambda store: store.delete_run("run"),
}
"""Each write that a fence checks; the last one deletes the run."""


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


async def lapsed_claims(
    store: ResumableWorkflowStore, *names: str, owner: str = "me"
) -> list[RunClaim]:
    """Claims on runs, "run" if none is named, whose leases ran out."""
    claims = [
        await a_claim(store, name, owner=owner, lease_s=SHORT_S) for name in names or ("run",)
    ]
    await asyncio.sleep(SHORT_S + 0.1)
    return claims


async def state_of(store: ResumableWorkflowStore, run_task_id: str = "run") -> Any:
    return await store.get_run(run_task_id), await store.list_steps(run_task_id)


async def _taken_over(store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await lapsed_claims(store)
    await a_claim(store, owner="other")
    return claim


async def _taken_over_as_abandoned(store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await lapsed_claims(store)
    assert await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
    return claim


async def _taken_over_and_released(store: ResumableWorkflowStore) -> RunClaim:
    (claim,) = await lapsed_claims(store)
    await store.release_claim(await a_claim(store, owner="other"))
    return claim


async def _claimed_anew(store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await a_claim(store)
    return claim


async def _released(store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await store.release_claim(claim)
    return claim


async def _deleted(store: ResumableWorkflowStore) -> RunClaim:
    claim = await a_claim(store)
    await store.delete_run("run")
    return claim


async def _created_again_after_deletion(store: ResumableWorkflowStore) -> RunClaim:
    claim = await _deleted(store)
    await store.create_run(a_run())
    return claim


async def _claimed_again_after_deletion(store: ResumableWorkflowStore) -> RunClaim:
    claim = await _created_again_after_deletion(store)
    await a_claim(store)
    return claim


LOST: dict[str, Callable[[ResumableWorkflowStore], Awaitable[RunClaim]]] = {
    "taken over": _taken_over,
    "taken over as abandoned": _taken_over_as_abandoned,
    "taken over and released": _taken_over_and_released,
    "claimed anew": _claimed_anew,
    "released": _released,
    "deleted": _deleted,
    "created again after deletion": _created_again_after_deletion,
    "claimed again after deletion": _claimed_again_after_deletion,
}
"""Each way to lose a claim of "me" on "run", which exists: makes one, loses it, and gives it."""
