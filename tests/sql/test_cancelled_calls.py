"""What a cancelled call had begun is over before a later call on the same run takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from support.databases import checked_out
from support.failures import locked, run, sessions, step
from support.waiting import until
from workflow_store import SqlWorkflowStore, open_store

pytestmark = [pytest.mark.slow, pytest.mark.measured]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlWorkflowStore]:
    async with open_store(database_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(run(context="first"))
        await store.upsert_step("r", step(result="first"))
        yield store


async def after(
    store: SqlWorkflowStore,
    url: str,
    cancelled: Callable[[], Awaitable[object]],
    later: Callable[[], Awaitable[object]],
) -> object:
    """Cancel a call whose statement waits for a lock, make a later one, and free the lock.

    Returns:
        The result of the later call, after all that the first one began.
    """

    async def waits_for_the_lock() -> bool:
        if url.startswith("sqlite"):
            return checked_out(store) > 0
        return bool(await sessions(url, that="wait_event_type = 'Lock'"))

    async with locked(url, "runs, steps, claims"):
        first = asyncio.ensure_future(cancelled())
        await until(waits_for_the_lock)
        # SQLite's busy handler looks less and less often, so that a later call would go first.
        await asyncio.sleep(0.5 if url.startswith("sqlite") else 0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        second = asyncio.ensure_future(later())
        for _ in range(20):
            await asyncio.sleep(0.005)  # time to overtake; none is needed to pass
    result = await second
    await until(lambda: checked_out(store) == 0)
    return result


async def test_a_cancelled_claim_never_voids_a_later_one(
    store: SqlWorkflowStore, database_url: str
) -> None:
    claim = await after(
        store,
        database_url,
        lambda: store.claim_run("r", owner="me", lease_s=0.01),
        lambda: store.claim_run("r", owner="me", lease_s=3600),
    )
    assert claim is not None
    assert await store.claim_run("r", owner="other") is None
    await store.renew_claim(claim)  # type: ignore[arg-type]


async def test_a_cancelled_release_never_releases_a_later_claim(
    store: SqlWorkflowStore, database_url: str
) -> None:
    held = await store.claim_run("r", owner="me", lease_s=3600)
    assert held is not None
    claim = await after(
        store,
        database_url,
        lambda: store.release_claim(held),
        lambda: store.claim_run("r", owner="me", lease_s=3600),
    )
    assert claim is not None
    assert await store.claim_run("r", owner="other") is None


async def test_a_cancelled_take_over_ends_before_a_later_claim(
    store: SqlWorkflowStore, database_url: str
) -> None:
    assert await store.claim_run("r", owner="gone", lease_s=0.001)
    await until(lambda: abandoned(store))
    claim = await after(
        store,
        database_url,
        lambda: store.claim_abandoned_runs(owner="me", lease_s=0.001),
        lambda: store.claim_run("r", owner="me", lease_s=3600),
    )
    assert claim is not None
    await store.renew_claim(claim)  # type: ignore[arg-type]


async def abandoned(store: SqlWorkflowStore) -> bool:
    return bool(await store.claim_abandoned_runs(owner="looks", lease_s=0.001))


async def test_a_cancelled_deletion_never_deletes_a_run_that_was_created_again(
    store: SqlWorkflowStore, database_url: str
) -> None:
    async def create() -> None:
        await store.create_run(run(context="again"))
        await store.upsert_step("r", step("again"))

    await after(store, database_url, lambda: store.delete_run("r"), create)
    assert "again" in [step.step_id for step in await store.list_steps("r")]


async def test_a_cancelled_purge_never_deletes_a_run_that_was_created_later(
    store: SqlWorkflowStore, database_url: str
) -> None:
    await after(
        store,
        database_url,
        lambda: store.purge_runs(created_before=datetime.now(UTC), only_terminal=False),
        lambda: store.create_run(run("old", created_at=LONG_AGO)),
    )
    assert await store.get_run("old") is not None


@pytest.mark.parametrize(
    "later", ["upsert_step", "commit_step", "update_context", "get_step", "load_run", "list_runs"]
)
async def test_a_cancelled_write_is_over_before_a_later_call_on_the_run(
    store: SqlWorkflowStore, database_url: str, later: str
) -> None:
    """What the later call wrote or read stays as it is."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "upsert_step": lambda: store.upsert_step("r", step(result="later")),
        "commit_step": lambda: store.commit_step("r", step(result="later"), "later"),
        "update_context": lambda: store.update_context("r", "later"),
        "get_step": lambda: store.get_step("r", "s"),
        "load_run": lambda: store.load_run("r"),
        "list_runs": store.list_runs,
    }
    read = await after(
        store,
        database_url,
        lambda: store.commit_step("r", step(result="cancelled"), "cancelled"),
        calls[later],
    )
    snapshot = await store.load_run("r")
    assert snapshot is not None
    assert (snapshot.steps[0].result == "later") == (later in {"upsert_step", "commit_step"})
    assert (snapshot.run.context == "later") == (later in {"update_context", "commit_step"})
    if read is not None:
        assert await calls[later]() == read
