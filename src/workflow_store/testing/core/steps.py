"""Tests of `upsert_step`, `get_step` and `list_steps`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ...errors import RunNotFoundError
from ...state import TaskStatus
from ...store import WorkflowStore
from ..samples import a_run, a_step, step_ids

__all__ = ["Steps"]


class Steps:
    """A step is inserted or replaced whole; the list keeps the order of the first insertions."""

    async def test_a_step_comes_back_as_it_was_written(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        now = datetime.now(UTC)
        step = a_step(
            status=TaskStatus.INPUT_REQUIRED,
            result={"partial": True},
            error="what happened",
            started_at=now,
            completed_at=now + timedelta(microseconds=1),
            wait_task_id="waits for this",
        )
        await store.upsert_step("run", step)
        assert await store.get_step("run", "step") == step
        assert await store.list_steps("run") == [step]

    async def test_every_status_comes_back(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        for status in TaskStatus:
            await store.upsert_step("run", a_step(status=status))
            step = await store.get_step("run", "step")
            assert step is not None
            assert step.status is status

    async def test_a_step_that_is_not_there_is_none(self, store: WorkflowStore) -> None:
        assert await store.get_step("nothing", "step") is None
        await store.create_run(a_run())
        assert await store.get_step("run", "step") is None

    async def test_writing_a_step_again_replaces_every_field(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        now = datetime.now(UTC)
        full = a_step(
            status=TaskStatus.FAILED,
            result=1,
            error="e",
            started_at=now,
            completed_at=now,
            wait_task_id="w",
        )
        for step in (full, a_step(), full):
            await store.upsert_step("run", step)
            assert await store.get_step("run", "step") == step

    async def test_a_step_needs_its_run(self, store: WorkflowStore) -> None:
        with pytest.raises(RunNotFoundError) as caught:
            await store.upsert_step("nothing", a_step())
        assert caught.value.run_task_id == "nothing"
        assert await store.list_steps("nothing") == []

    async def test_a_late_step_never_brings_a_deleted_run_back(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        await store.delete_run("run")
        with pytest.raises(RunNotFoundError):
            await store.upsert_step("run", a_step())
        assert await store.get_run("run") is None
        assert await store.list_steps("run") == []

    async def test_steps_are_listed_in_the_order_of_their_first_insertion(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        order = ["m", "z", "a", "B", "é", "10", "9"]
        for step_id in order:
            await store.upsert_step("run", a_step(step_id))
        for step_id in sorted(order):
            await store.upsert_step("run", a_step(step_id, status=TaskStatus.COMPLETED))
        assert await step_ids(store) == order

    async def test_the_order_is_that_of_each_run(self, store: WorkflowStore) -> None:
        """Writes to other runs do not change the order of a run's steps."""
        for run_task_id in ("one", "two"):
            await store.create_run(a_run(run_task_id))
        for run_task_id, step_id in (("one", "b"), ("two", "a"), ("two", "b"), ("one", "a")):
            await store.upsert_step(run_task_id, a_step(step_id))
        assert await step_ids(store, "one") == ["b", "a"]
        assert await step_ids(store, "two") == ["a", "b"]

    async def test_a_run_without_steps_lists_none(self, store: WorkflowStore) -> None:
        assert await store.list_steps("nothing") == []
        await store.create_run(a_run())
        assert await store.list_steps("run") == []

    async def test_repeating_a_call_leaves_the_same_state(self, store: WorkflowStore) -> None:
        run, step = a_run(), a_step(result=[1])
        for _ in range(2):
            await store.create_run(run)
            await store.upsert_step("run", step)
        assert await store.get_run("run") == run
        assert await store.list_steps("run") == [step]
