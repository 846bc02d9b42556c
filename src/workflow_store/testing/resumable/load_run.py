"""Tests of `load_run`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ...errors import InvalidStateError, StoreClosedError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore, RunSnapshot
from ..overlap import check_during, check_during_writes
from ..samples import BAD_IDENTIFIERS, HOSTILE_IDENTIFIERS, HOSTILE_VALUES, a_run, a_step, exact

__all__ = ["SnapshotContract"]


@pytest.mark.asyncio
class SnapshotContract:
    """Tests of `load_run`: a run and its steps as of one moment."""

    async def test_a_snapshot_is_a_run_and_its_steps_in_their_order(
        self, store: ResumableWorkflowStore
    ) -> None:
        for run_task_id in ("run", "other"):
            await store.create_run(
                a_run(run_task_id, workspace_id="w", entry_point="e", input=[1], context={"c": 0})
            )
            for step_id in ("z", "a", "m"):
                step = a_step(step_id, result={"of": run_task_id}, error="\0\ud800")
                step.started_at = step.completed_at = datetime.now(UTC)
                step.wait_task_id, step.status = "w", TaskStatus.FAILED
                await store.upsert_step(run_task_id, step)
        await store.upsert_step("run", a_step("z"))
        snapshot = await store.load_run("run")
        assert isinstance(snapshot, RunSnapshot)
        assert snapshot.run == await store.get_run("run")
        assert snapshot.steps == await store.list_steps("run")
        assert [step.step_id for step in snapshot.steps] == ["z", "a", "m"]

    async def test_a_snapshot_of_a_run_without_steps_has_none_of_them(
        self, store: ResumableWorkflowStore
    ) -> None:
        run = a_run()
        await store.create_run(run)
        assert await store.load_run("run") == RunSnapshot(run, [])

    async def test_there_is_no_snapshot_where_there_is_no_run(
        self, store: ResumableWorkflowStore
    ) -> None:
        assert await store.load_run("run") is None
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        await store.delete_run("run")
        assert await store.load_run("run") is None

    @pytest.mark.parametrize("name", HOSTILE_VALUES)
    async def test_a_snapshot_has_json_values_exactly(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        value = HOSTILE_VALUES[name]
        await store.create_run(a_run(input=value, context=value))
        await store.upsert_step("run", a_step(result=value))
        snapshot = await store.load_run("run")
        assert snapshot is not None
        for stored in (snapshot.run.input, snapshot.run.context, snapshot.steps[0].result):
            assert exact(stored) == exact(value)

    async def test_a_snapshot_is_of_exactly_one_identifier(
        self, store: ResumableWorkflowStore
    ) -> None:
        for identifier in HOSTILE_IDENTIFIERS:
            await store.create_run(a_run(identifier, input=identifier))
            await store.upsert_step(identifier, a_step(identifier))
        for identifier in HOSTILE_IDENTIFIERS:
            snapshot = await store.load_run(identifier)
            assert snapshot is not None
            assert (snapshot.run.run_task_id, snapshot.run.input) == (identifier, identifier)
            assert snapshot.steps == [a_step(identifier)]

    async def test_a_snapshot_and_the_store_are_apart(self, store: ResumableWorkflowStore) -> None:
        """Changing a returned snapshot never changes the store."""
        await store.create_run(a_run(context={"a": []}))
        await store.upsert_step("run", a_step(result={"b": []}))
        first = await store.load_run("run")
        assert first is not None
        first.run.context["a"].append("changed")
        first.steps[0].result["b"].append("changed")
        first.steps.clear()
        second = await store.load_run("run")
        assert second is not None
        assert second.run.context == {"a": []}
        assert second.steps == [a_step(result={"b": []})]

    async def test_a_snapshot_never_mixes_two_lives_of_a_run(
        self, store: ResumableWorkflowStore
    ) -> None:
        """A run that was deleted and created again has no step of the deleted run."""

        async def live() -> None:
            for life in range(30):
                await store.create_run(a_run(context=life))
                await store.upsert_step("run", a_step(result=life))
                await store.delete_run("run")

        async def check() -> None:
            snapshot = await store.load_run("run")
            if snapshot is not None:
                assert [step.result for step in snapshot.steps] in ([], [snapshot.run.context])

        await check_during(live(), check)

    async def test_a_snapshot_never_has_a_step_that_is_newer_than_the_context(
        self, store: ResumableWorkflowStore
    ) -> None:
        async def write(number: int) -> None:
            await store.update_context("run", number)
            await store.upsert_step("run", a_step(result=number))

        async def check() -> None:
            snapshot = await store.load_run("run")
            assert snapshot is not None
            assert snapshot.run.context - snapshot.steps[0].result in {0, 1}

        await check_during_writes(store, write, check)

    async def test_a_snapshot_of_a_bad_identifier_is_refused(
        self, store: ResumableWorkflowStore
    ) -> None:
        for identifier in BAD_IDENTIFIERS:
            with pytest.raises(InvalidStateError):
                await store.load_run(identifier)

    async def test_a_closed_store_gives_no_snapshot(self, store: ResumableWorkflowStore) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await store.load_run("run")
        finally:
            await store.open()
