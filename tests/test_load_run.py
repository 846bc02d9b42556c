"""The read that a resume makes: a run and its steps, as they were at one moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from workflow_store import (
    InMemoryWorkflowStore,
    InvalidStateError,
    SqlWorkflowStore,
    StoreClosedError,
)
from workflow_store.testing import a_run, a_step
from workflow_store.testing.samples import HOSTILE_VALUES

Store = InMemoryWorkflowStore | SqlWorkflowStore


async def test_a_snapshot_is_the_run_and_its_steps_in_their_order(store: Store) -> None:
    """The same as `get_run` and `list_steps` give, of this run alone."""
    now = datetime.now(UTC)
    for run_task_id in ("run", "other"):
        await store.create_run(a_run(run_task_id, workspace_id="w", input=[1], context={"c": None}))
        for step_id in ("z", "a", "m"):
            step = a_step(step_id, status="failed", result={"of": run_task_id}, error="\0\ud800")
            step.started_at, step.completed_at, step.wait_task_id = now, now, "w"
            await store.upsert_step(run_task_id, step)
    await store.upsert_step("run", a_step("z"))
    snapshot = await store.load_run("run")
    assert snapshot is not None
    assert snapshot.run == await store.get_run("run")
    assert snapshot.steps == await store.list_steps("run")
    assert [step.step_id for step in snapshot.steps] == ["z", "a", "m"]


async def test_a_run_without_steps_and_no_run_are_told_apart(store: Store) -> None:
    """An empty list of steps is not None."""
    assert await store.load_run("run") is None
    await store.create_run(a_run())
    snapshot = await store.load_run("run")
    assert snapshot is not None
    assert snapshot.steps == []


@pytest.mark.parametrize("name", ["zeros", "NUL", "lone surrogates", "128 levels", "key order"])
async def test_a_snapshot_is_lossless(store: Store, name: str) -> None:
    """What a store keeps exactly comes back exactly here, too."""
    value = HOSTILE_VALUES[name]
    await store.create_run(a_run(input=value, context=value))
    await store.upsert_step("run", a_step(result=value))
    snapshot = await store.load_run("run")
    assert snapshot is not None
    assert repr((snapshot.run.input, snapshot.steps[0].result)) == repr((value, value))


async def test_a_snapshot_never_mixes_two_moments(store: Store) -> None:
    """Beside a writer that deletes and re-creates the run, its steps are those of one life."""
    stop = False

    async def live() -> None:
        for life in range(40):
            await store.create_run(a_run(context=life))
            await store.upsert_step("run", a_step(result=life))
            await store.delete_run("run")

    async def look() -> None:
        while not stop:
            snapshot = await store.load_run("run")
            if snapshot is not None:
                assert [step.result for step in snapshot.steps] in ([], [snapshot.run.context])
            await asyncio.sleep(0)

    looking = asyncio.ensure_future(look())
    await live()
    stop = True
    await looking


async def test_a_bad_id_and_a_closed_store_are_refused(store: Store) -> None:
    """As by every method."""
    with pytest.raises(InvalidStateError):
        await store.load_run("")
    await store.close()
    try:
        with pytest.raises(StoreClosedError):
            await store.load_run("run")
    finally:
        await store.open()
