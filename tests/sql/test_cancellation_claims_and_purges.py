"""Cancelled claims, fenced writes and purges are applied whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest

from support.cancellation import cancelled, settled, some_delay
from support.databases import checked_out
from support.marked_runs import (
    LONG_AGO,
    READS,
    WRITES,
    a_read,
    a_write,
    check_run,
    check_step,
    run,
    step,
)
from workflow_store import (
    ClaimLostError,
    InMemoryWorkflowStore,
    ResumableWorkflowStore,
    RunClaim,
    TaskStatus,
)

pytestmark = pytest.mark.slow


async def holds(store: ResumableWorkflowStore, claim: RunClaim) -> bool:
    try:
        await store.renew_claim(claim)
    except ClaimLostError:
        return False
    return True


async def a_claim(store: ResumableWorkflowStore, lease_s: float = 3600) -> RunClaim:
    claim = await store.claim_run("r", owner="me", lease_s=lease_s)
    assert claim is not None
    return claim


async def test_a_cancelled_claim_renewal_or_release_is_made_whole_or_not_at_all(
    store: ResumableWorkflowStore,
) -> None:
    """Tokens keep growing, and no other owner gets the claim in between."""
    await store.create_run(run("r"))
    token = 0
    for number in range(120):
        claim = await a_claim(store)
        assert claim.token > token
        match ("claim_run", "renew_claim", "release_claim")[number % 3]:
            case "claim_run":
                ended = await cancelled(store.claim_run("r", owner="me"), some_delay())
                expected = {False} if ended else {False, True}
            case "renew_claim":
                await cancelled(store.renew_claim(claim), some_delay())
                expected = {True}
            case _:
                ended = await cancelled(store.release_claim(claim), some_delay())
                expected = {False} if ended else {False, True}
        await settled(store)
        assert checked_out(store) == 0
        held = await holds(store, claim)
        assert held in expected
        other = await store.claim_run("r", owner="other", lease_s=0.000_001)
        assert other is None or not held
        token = claim.token if other is None else other.token


async def test_a_cancelled_take_over_has_all_of_the_runs_or_none(
    store: ResumableWorkflowStore,
) -> None:
    """One transaction takes over all of them, and goes on to its end in the background."""
    names = [f"r{number}" for number in range(4)]
    for name in names:
        await store.create_run(run(name))
    for _ in range(40):
        old = [await store.claim_run(name, owner="me", lease_s=0.001) for name in names]
        await asyncio.sleep(0.02)
        ended = await cancelled(
            store.claim_abandoned_runs(owner="other", lease_s=3600), some_delay()
        )
        await settled(store)
        assert checked_out(store) == 0
        kept = {await holds(store, claim._replace(lease_s=3600)) for claim in old if claim}
        assert kept == {False} if ended else kept in ({False}, {True})
        for name in names:
            await store.delete_run(name)
            await store.create_run(run(name))


async def test_a_cancelled_fenced_write_is_whole_or_undone_and_never_after_a_take_over(
    store: ResumableWorkflowStore,
) -> None:
    """Work that continues in the background is fenced like awaited work."""
    for mark in range(1, 101):
        await store.create_run(run("r", -mark))
        await store.upsert_step("r", step("s", -mark))
        claim = await a_claim(store)
        view = store.fenced(claim)
        writes = ("create_run", "update_context", "upsert_step", "commit_step")
        await cancelled(a_write(view, random.choice(writes), mark), some_delay())
        await a_claim(store)
        taken_over = await store.load_run("r")
        await cancelled(a_write(view, random.choice(WRITES), 0), some_delay(), lost=True)
        await settled(store)
        assert checked_out(store) == 0
        assert await store.load_run("r") == taken_over
        assert taken_over is not None
        assert check_run(taken_over.run) in {-mark, mark}
        assert [check_step(each) in {-mark, mark} for each in taken_over.steps] == [True]


async def test_a_cancelled_purge_stops_and_leaves_whole_runs(
    store: ResumableWorkflowStore,
) -> None:
    """No further transaction begins, and a second purge goes on with the rest."""
    for name in ("r", "kept"):
        await store.create_run(run(name))
    left = 0
    for _ in range(12):
        names = [f"r{number}" for number in range(12)]
        await asyncio.gather(*(store.create_run(run(name)) for name in names))
        for step_id in ("a", "b"):
            ended = step(step_id).model_copy(update={"status": TaskStatus.COMPLETED})
            await asyncio.gather(*(store.upsert_step(name, ended) for name in names))
        await store.upsert_step("kept", step("s"))
        purge = store.purge_runs(created_before=datetime.now(UTC), batch_size=2)
        await cancelled(purge, random.choice([some_delay(), random.uniform(0, 0.1)]))
        await settled(store)
        assert checked_out(store) == 0
        found = await store.list_runs(limit=1000)
        await asyncio.sleep(0.02)  # longer than the pause between two transactions
        assert await store.list_runs(limit=1000) == found
        for summary in found.runs:
            if summary.run_task_id not in {"r", "kept"}:
                assert summary.step_counts == {TaskStatus.COMPLETED: 2}
                left += 1
        purged = await store.purge_runs(created_before=datetime.now(UTC))
        assert purged == sum(summary.run_task_id != "kept" for summary in found.runs)
        for name in names:
            assert await store.list_steps(name) == []
        assert len(await store.list_steps("kept")) == 1
    assert left or isinstance(store, InMemoryWorkflowStore)  # which purges in one go


async def test_calls_of_all_kinds_cancelled_at_once_leave_no_connection_in_use(
    store: ResumableWorkflowStore,
) -> None:
    """Transactions of several statements among single ones, all competing for connections."""
    for _ in range(10):
        await store.create_run(run("r"))
        await store.upsert_step("r", step("s"))
        claim = await a_claim(store)
        view = store.fenced(claim)
        calls: list[Awaitable[object]] = [
            call
            for number in range(4)
            for call in (
                a_read(view, random.choice(READS)),
                a_write(view, random.choice(WRITES[:-1]), number),
                a_write(store, random.choice(WRITES[:-1]), number),
                store.claim_run("r", owner=f"{number}"),
                store.claim_abandoned_runs(owner="me"),
                store.renew_claim(claim),
                store.list_runs(limit=1),
                store.purge_runs(created_before=LONG_AGO),
            )
        ]
        await asyncio.gather(*(cancelled(call, some_delay()) for call in calls))
        await settled(store)
        assert checked_out(store) == 0
        assert await holds(store, claim)
        await store.release_claim(claim)
        found = await store.load_run("r")
        assert found is not None
        check_run(found.run)
        assert [check_step(each) is not None for each in found.steps] == [True]
