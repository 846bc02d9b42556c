"""Tests of `commit_step`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from ...errors import InvalidStateError, RunNotFoundError, StoreClosedError
from ...state import TaskStatus, WorkflowStepState
from ...store import ResumableWorkflowStore
from ..overlap import check_during_writes
from ..samples import (
    BAD_IDENTIFIERS,
    FOREIGN_VALUES,
    HOSTILE_IDENTIFIERS,
    HOSTILE_VALUES,
    a_run,
    a_step,
    exact,
)

__all__ = ["CommitStepContract"]

_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.mark.asyncio
class CommitStepContract:
    """Tests of `commit_step`: `upsert_step` and `update_context` in one transaction."""

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
        """An invalid step changes neither the step nor the context."""
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
        """Changing an object that was passed in never changes the store."""
        await store.create_run(a_run())
        step, context = a_step(result={"a": []}), {"b": [0]}
        await store.commit_step("run", step, context)
        step.result["a"].append("changed")
        context["b"].append(1)
        run, stored = await store.get_run("run"), await store.get_step("run", "step")
        assert run is not None
        assert stored is not None
        assert (stored.result, run.context) == ({"a": []}, {"b": [0]})

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
        """Concurrent commits to an existing run succeed."""
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
        """The second of two reads is never older, whether it reads the step or the context."""

        async def write(number: int) -> None:
            await store.commit_step("run", a_step(result=number), number)

        async def check() -> None:
            run, step = await store.get_run("run"), await store.get_step("run", "step")
            again = await store.get_run("run")
            assert run is not None
            assert step is not None
            assert again is not None
            assert run.context <= step.result <= again.context

        await check_during_writes(store, write, check)

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
