"""The contract of what a resume needs, test by test: snapshots and commits of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from ..errors import InvalidStateError, RunNotFoundError, StoreClosedError
from ..state import TaskStatus, WorkflowStepState
from ..store import ResumableWorkflowStore, RunSnapshot
from .contract import BAD_IDENTIFIERS
from .samples import FOREIGN_VALUES, HOSTILE_IDENTIFIERS, HOSTILE_VALUES, a_run, a_step, exact

__all__ = ["CommitStepContract", "SnapshotContract", "beside", "beside_writes"]

_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


async def beside(work: Coroutine[Any, Any, None], look: Callable[[], Awaitable[None]]) -> None:
    """Look again and again while something is at work."""
    working = asyncio.ensure_future(work)
    try:
        while not working.done():
            await look()
            await asyncio.sleep(0)
    finally:
        await working


async def beside_writes(
    store: ResumableWorkflowStore,
    write: Callable[[int], Awaitable[None]],
    look: Callable[[], Awaitable[None]],
) -> None:
    """Look again and again while numbers are written to a run whose step and context hold 0."""
    await store.create_run(a_run(context=0))
    await store.upsert_step("run", a_step(result=0))

    async def write_all() -> None:
        for number in range(1, 50):
            await write(number)

    await beside(write_all(), look)


@pytest.mark.asyncio
class SnapshotContract:
    """What `load_run` promises."""

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
        for found in (snapshot.run.input, snapshot.run.context, snapshot.steps[0].result):
            assert exact(found) == exact(value)

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
        async def live() -> None:
            for life in range(30):
                await store.create_run(a_run(context=life))
                await store.upsert_step("run", a_step(result=life))
                await store.delete_run("run")

        async def look() -> None:
            snapshot = await store.load_run("run")
            if snapshot is not None:
                assert [step.result for step in snapshot.steps] in ([], [snapshot.run.context])

        await beside(live(), look)

    async def test_a_snapshot_never_has_a_step_that_is_newer_than_the_context(
        self, store: ResumableWorkflowStore
    ) -> None:
        async def write(number: int) -> None:
            await store.update_context("run", number)
            await store.upsert_step("run", a_step(result=number))

        async def look() -> None:
            snapshot = await store.load_run("run")
            assert snapshot is not None
            assert snapshot.run.context - snapshot.steps[0].result in {0, 1}

        await beside_writes(store, write, look)

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


@pytest.mark.asyncio
class CommitStepContract:
    """What `commit_step` promises."""

    async def test_a_commit_writes_the_step_and_the_context_and_nothing_else_but_the_time(
        self, store: ResumableWorkflowStore
    ) -> None:
        run = a_run(workspace_id="w", input=1, created_at=_LONG_AGO, updated_at=_LONG_AGO)
        await store.create_run(run)
        other = a_run("other")
        await store.create_run(other)
        before = datetime.now(UTC)
        step = a_step(
            status=TaskStatus.COMPLETED,
            result={"n": 1},
            error="e",
            started_at=before,
            completed_at=before,
            wait_task_id="w",
        )
        await store.commit_step("run", step, {"new": [1, 2]})
        assert await store.list_steps("run") == [step]
        changed = await store.get_run("run")
        assert changed is not None
        assert before <= changed.updated_at <= datetime.now(UTC)
        run.context, run.updated_at = {"new": [1, 2]}, changed.updated_at
        assert changed == run
        assert await store.get_run("other") == other
        assert await store.list_steps("other") == []

    async def test_a_commit_replaces_the_step_and_the_context_whole(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run(context={"old": 1}))
        now = datetime.now(UTC)
        full = a_step(
            status=TaskStatus.FAILED,
            result=1,
            error="e",
            started_at=now,
            completed_at=now,
            wait_task_id="w",
        )
        commits: tuple[tuple[WorkflowStepState, Any], ...]
        commits = ((full, {"new": 2}), (a_step(), None), (full, []), (a_step(), {"last": 0}))
        for step, context in commits:
            await store.commit_step("run", step, context)
            run = await store.get_run("run")
            assert run is not None
            assert exact(run.context) == exact(context)
            assert await store.list_steps("run") == [step]

    async def test_a_commit_keeps_the_place_of_a_step(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step("b"))
        for step_id in ("c", "a", "b", "c"):
            await store.commit_step("run", a_step(step_id, result="committed"), {})
        await store.upsert_step("run", a_step("a", result="committed"))
        assert await store.list_steps("run") == [
            a_step(step_id, result="committed") for step_id in ("b", "c", "a")
        ]

    async def test_a_commit_needs_its_run(self, store: ResumableWorkflowStore) -> None:
        with pytest.raises(RunNotFoundError) as caught:
            await store.commit_step("nothing", a_step(), {})
        assert caught.value.run_task_id == "nothing"
        assert await store.get_run("nothing") is None
        assert await store.list_steps("nothing") == []

    async def test_a_late_commit_never_brings_a_deleted_run_back(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.commit_step("run", a_step(), {})
        await store.delete_run("run")
        with pytest.raises(RunNotFoundError):
            await store.commit_step("run", a_step(), {})
        assert await store.get_run("run") is None
        assert await store.list_steps("run") == []

    async def test_repeating_a_commit_leaves_the_same_state(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for _ in range(2):
            await store.commit_step("run", a_step(result=[1]), {"n": 1})
            run = await store.get_run("run")
            assert run is not None
            assert run.context == {"n": 1}
            assert await store.list_steps("run") == [a_step(result=[1])]

    @pytest.mark.parametrize("name", FOREIGN_VALUES)
    async def test_a_commit_of_what_is_not_json_writes_neither(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        value, path = FOREIGN_VALUES[name]
        run, step = a_run(context="before"), a_step(result="before")
        await store.create_run(run)
        await store.upsert_step("run", step)
        for step_id in ("step", "new"):
            with pytest.raises(InvalidStateError) as caught:
                await store.commit_step("run", a_step(step_id, result="after"), value)
            assert f"context{path}" in str(caught.value)
            with pytest.raises(InvalidStateError) as caught:
                await store.commit_step("run", a_step(step_id, result=value), "after")
            assert f"result{path}" in str(caught.value)
        assert await store.get_run("run") == run
        assert await store.list_steps("run") == [step]

    async def test_a_commit_of_a_spoiled_step_writes_neither(
        self, store: ResumableWorkflowStore
    ) -> None:
        run = a_run()
        await store.create_run(run)
        spoiled: tuple[Any, ...] = (
            None,
            "step",
            a_run(),
            a_step().model_dump(),
            WorkflowStepState.model_construct(step_id="a", status="no such status"),
            WorkflowStepState.model_construct(step_id=""),
            a_step().model_copy(update={"started_at": datetime(2026, 1, 1)}),  # noqa: DTZ001
            a_step().model_copy(update={"unknown": 1}),
        )
        for step in spoiled:
            with pytest.raises(InvalidStateError):
                await store.commit_step("run", step, "after")
        assert await store.get_run("run") == run
        assert await store.list_steps("run") == []

    async def test_a_commit_of_bad_values_is_refused_whether_there_is_a_run_or_not(
        self, store: ResumableWorkflowStore
    ) -> None:
        with pytest.raises(InvalidStateError):
            await store.commit_step("nothing", a_step(result=b""), {})
        with pytest.raises(InvalidStateError):
            await store.commit_step("nothing", a_step(), b"")
        for identifier in BAD_IDENTIFIERS:
            with pytest.raises(InvalidStateError):
                await store.commit_step(identifier, a_step(), {})

    @pytest.mark.parametrize("name", HOSTILE_VALUES)
    async def test_a_committed_json_value_comes_back_exactly(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        value = HOSTILE_VALUES[name]
        await store.create_run(a_run())
        await store.commit_step("run", a_step(result=value), value)
        run, step = await store.get_run("run"), await store.get_step("run", "step")
        assert run is not None
        assert step is not None
        assert exact(run.context) == exact(step.result) == exact(value)

    async def test_a_commit_is_to_exactly_one_identifier(
        self, store: ResumableWorkflowStore
    ) -> None:
        for identifier in HOSTILE_IDENTIFIERS:
            await store.create_run(a_run(identifier))
        for identifier in HOSTILE_IDENTIFIERS:
            step = a_step(identifier, result=identifier, wait_task_id=identifier)
            await store.commit_step(identifier, step, identifier)
        for identifier in HOSTILE_IDENTIFIERS:
            run = await store.get_run(identifier)
            assert run is not None
            assert run.context == identifier
            step = a_step(identifier, result=identifier, wait_task_id=identifier)
            assert await store.list_steps(identifier) == [step]

    async def test_what_was_committed_and_the_callers_objects_are_apart(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        step, context = a_step(result={"a": []}), {"b": [0]}
        await store.commit_step("run", step, context)
        step.result["a"].append("changed")
        context["b"].append(1)
        run, found = await store.get_run("run"), await store.get_step("run", "step")
        assert run is not None
        assert found is not None
        assert (found.result, run.context) == ({"a": []}, {"b": [0]})

    async def test_commits_of_one_step_made_at_once_leave_step_and_context_of_the_same(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for _ in range(5):
            await asyncio.gather(
                *(store.commit_step("run", a_step(result=n), n) for n in range(20))
            )
            run, (step,) = await store.get_run("run"), await store.list_steps("run")
            assert run is not None
            assert step.result == run.context

    async def test_commits_of_new_steps_made_at_once_leave_the_context_of_the_last(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for batch in range(5):
            names = [f"{batch}:{n}" for n in range(20)]
            await asyncio.gather(
                *(store.commit_step("run", a_step(name), name) for name in reversed(names))
            )
            run, steps = await store.get_run("run"), await store.list_steps("run")
            assert run is not None
            assert sorted(step.step_id for step in steps[-20:]) == sorted(names)
            assert steps[-1].step_id == run.context

    async def test_a_commit_to_a_missing_run_fails_alone(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        outcomes = await asyncio.gather(
            *(
                store.commit_step("run" if n % 2 else "nothing", a_step(f"{n}"), n)
                for n in range(20)
            ),
            return_exceptions=True,
        )
        for n, outcome in enumerate(outcomes):
            assert outcome is None if n % 2 else isinstance(outcome, RunNotFoundError)
        steps = await store.list_steps("run")
        assert sorted(int(step.step_id) for step in steps) == list(range(1, 20, 2))

    async def test_a_run_deleted_while_steps_are_committed_leaves_none(
        self, store: ResumableWorkflowStore
    ) -> None:
        for _ in range(5):
            await store.create_run(a_run())
            outcomes = await asyncio.gather(
                *(store.commit_step("run", a_step(f"{n}"), n) for n in range(10)),
                store.delete_run("run"),
                *(store.commit_step("run", a_step(f"{n}"), n) for n in range(10, 20)),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} <= {type(None), RunNotFoundError}
            assert await store.get_run("run") is None
            assert await store.list_steps("run") == []

    async def test_no_reader_sees_a_committed_step_without_its_context_nor_the_reverse(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Of two reads, the second one is never older, whichever of both is read first."""

        async def write(number: int) -> None:
            await store.commit_step("run", a_step(result=number), number)

        async def look() -> None:
            run, step = await store.get_run("run"), await store.get_step("run", "step")
            again = await store.get_run("run")
            assert run is not None
            assert step is not None
            assert again is not None
            assert run.context <= step.result <= again.context

        await beside_writes(store, write, look)

    async def test_a_cancelled_commit_is_whole_or_not_at_all_and_the_store_goes_on(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run(context=None))
        await store.upsert_step("run", a_step())
        for n in range(20):
            task = asyncio.ensure_future(store.commit_step("run", a_step(result=n), n))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await store.upsert_step("run", a_step("next", result=n))
            run, steps = await store.get_run("run"), await store.list_steps("run")
            assert run is not None
            assert [step.result for step in steps] == [run.context, n]

    async def test_a_closed_store_commits_nothing(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await store.commit_step("run", a_step(), {})
        finally:
            await store.open()
        assert await store.list_steps("run") == []
