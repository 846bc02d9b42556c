"""Tests of `find_waiting_step`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ...errors import InvalidStateError, StoreClosedError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore, WaitingStep
from ..samples import BAD_IDENTIFIERS, HOSTILE_IDENTIFIERS, a_run, a_step

__all__ = ["WaitingStepContract"]


@pytest.mark.asyncio
class WaitingStepContract:
    """Tests of `find_waiting_step`: the step with this `wait_task_id` that has not ended."""

    async def test_a_waiting_step_is_found_by_the_id_that_it_waits_under(
        self, store: ResumableWorkflowStore
    ) -> None:
        for run_task_id in ("run", "other"):
            await store.create_run(a_run(run_task_id))
            for step_id in ("a", "b"):
                await store.upsert_step(
                    run_task_id, a_step(step_id, wait_task_id=f"{run_task_id}:{step_id}")
                )
        step = a_step(
            "b",
            status=TaskStatus.INPUT_REQUIRED,
            result={"question": "\0\ud800"},
            error="e",
            started_at=datetime.now(UTC),
            wait_task_id="run:b",
        )
        await store.upsert_step("run", step)
        waiting = await store.find_waiting_step("run:b")
        assert isinstance(waiting, WaitingStep)
        assert waiting == WaitingStep("run", step)

    async def test_nothing_waits_under_an_id_that_no_step_has(
        self, store: ResumableWorkflowStore
    ) -> None:
        assert await store.find_waiting_step("w") is None
        await store.create_run(a_run("w"))
        await store.upsert_step("w", a_step("w", result="w", error="w"))
        await store.upsert_step("w", a_step("waits", wait_task_id="w2"))
        for identifier in ("w", "W2", "w2 ", "w22"):
            assert await store.find_waiting_step(identifier) is None

    @pytest.mark.parametrize("status", TaskStatus)
    async def test_a_step_waits_until_it_ended(
        self, store: ResumableWorkflowStore, status: TaskStatus
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(wait_task_id="w"))
        step = a_step(status=status, wait_task_id="w")
        await store.upsert_step("run", step)
        waiting = await store.find_waiting_step("w")
        assert waiting == (None if status.is_terminal else WaitingStep("run", step))

    async def test_a_step_that_begins_again_waits_again(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(status=TaskStatus.FAILED, wait_task_id="w"))
        assert await store.find_waiting_step("w") is None
        step = a_step(status=TaskStatus.RUNNING, wait_task_id="w")
        await store.upsert_step("run", step)
        assert await store.find_waiting_step("w") == WaitingStep("run", step)

    async def test_a_step_written_without_the_id_waits_no_more(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(wait_task_id="w"))
        await store.upsert_step("run", a_step())
        assert await store.find_waiting_step("w") is None
        step = a_step(wait_task_id="another")
        await store.upsert_step("run", step)
        assert await store.find_waiting_step("w") is None
        assert await store.find_waiting_step("another") == WaitingStep("run", step)

    async def test_of_several_waiting_steps_the_one_inserted_last_is_found(
        self, store: ResumableWorkflowStore
    ) -> None:
        for run_task_id in ("one", "two"):
            await store.create_run(a_run(run_task_id))
        places = [("two", "m"), ("one", "z"), ("two", "a"), ("one", "b")]
        for n, (run_task_id, step_id) in enumerate(places):
            step = a_step(step_id, wait_task_id="w" if n else None)
            await store.upsert_step(run_task_id, step)
        for run_task_id, step_id in reversed(places):  # to write it again is not to insert it
            step = a_step(step_id, status=TaskStatus.RUNNING, wait_task_id="w")
            await store.upsert_step(run_task_id, step)
        for run_task_id, step_id in reversed(places):
            waiting = await store.find_waiting_step("w")
            assert waiting is not None
            assert (waiting.run_task_id, waiting.step.step_id) == (run_task_id, step_id)
            ended = a_step(step_id, status=TaskStatus.CANCELED, wait_task_id="w")
            await store.upsert_step(run_task_id, ended)
        assert await store.find_waiting_step("w") is None

    async def test_no_step_of_a_deleted_run_waits(self, store: ResumableWorkflowStore) -> None:
        step = a_step(wait_task_id="w")
        for run_task_id in ("one", "two"):
            await store.create_run(a_run(run_task_id))
            await store.upsert_step(run_task_id, step)
        await store.delete_run("two")
        assert await store.find_waiting_step("w") == WaitingStep("one", step)
        await store.delete_run("one")
        assert await store.find_waiting_step("w") is None
        await store.create_run(a_run("one"))
        assert await store.find_waiting_step("w") is None

    async def test_a_step_goes_on_waiting_when_its_run_is_created_again(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(wait_task_id="w"))
        await store.create_run(a_run(input="again"))
        assert await store.find_waiting_step("w") == WaitingStep("run", a_step(wait_task_id="w"))

    async def test_the_id_that_a_step_waits_under_is_compared_byte_by_byte(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for n, identifier in enumerate(HOSTILE_IDENTIFIERS):
            assert await store.find_waiting_step(identifier) is None
            await store.upsert_step("run", a_step(f"{n}", wait_task_id=identifier))
        for n, identifier in enumerate(HOSTILE_IDENTIFIERS):
            waiting = await store.find_waiting_step(identifier)
            assert waiting == WaitingStep("run", a_step(f"{n}", wait_task_id=identifier))

    async def test_a_bad_id_to_wait_under_is_refused(self, store: ResumableWorkflowStore) -> None:
        for identifier in BAD_IDENTIFIERS:
            with pytest.raises(InvalidStateError):
                await store.find_waiting_step(identifier)

    async def test_a_closed_store_finds_no_waiting_step(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await store.find_waiting_step("w")
        finally:
            await store.open()
