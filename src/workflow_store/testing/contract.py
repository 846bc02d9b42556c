"""The contract, test by test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ..errors import InvalidStateError, RunNotFoundError, StoreClosedError
from ..state import TaskStatus, WorkflowStepState
from ..store import WorkflowStore
from .samples import FOREIGN_VALUES, HOSTILE_IDENTIFIERS, HOSTILE_VALUES, a_run, a_step, exact

__all__ = ["WorkflowStoreContract"]

BAD_IDENTIFIERS: tuple[Any, ...] = ("", "a\0b", "\ud800", "x" * 1025, "é" * 513, None, 7, b"run")

CALLS: dict[str, Callable[[WorkflowStore, Any], Awaitable[Any]]] = {
    "create_run": lambda store, _: store.create_run(a_run()),
    "get_run": lambda store, run: store.get_run(run),
    "update_context": lambda store, run: store.update_context(run, {}),
    "delete_run": lambda store, run: store.delete_run(run),
    "upsert_step": lambda store, run: store.upsert_step(run, a_step()),
    "get_step": lambda store, run: store.get_step(run, "step"),
    "get_step by step": lambda store, step: store.get_step("run", step),
    "list_steps": lambda store, run: store.list_steps(run),
}
"""Each method, called with one identifier."""


async def _ids(store: WorkflowStore, run_task_id: str = "run") -> list[str]:
    return [step.step_id for step in await store.list_steps(run_task_id)]


class _Runs:
    async def test_a_run_comes_back_as_it_was_created(self, store: WorkflowStore) -> None:
        run = a_run(
            workspace_id="workspace",
            entry_point="main",
            input={"question": "why"},
            context={"so far": []},
        )
        await store.create_run(run)
        assert await store.get_run("run") == run

    async def test_optional_fields_of_a_run_may_be_none(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        run = await store.get_run("run")
        assert run is not None
        assert (run.workspace_id, run.entry_point, run.input, run.context) == (None, None, {}, {})

    async def test_a_run_that_is_not_there_is_none(self, store: WorkflowStore) -> None:
        assert await store.get_run("nothing") is None

    async def test_creating_again_replaces_every_field(self, store: WorkflowStore) -> None:
        await store.create_run(a_run(workspace_id="w", entry_point="e", context={"old": 1}))
        other = a_run(
            agent_id="agent 2",
            thread_id="thread 2",
            user_id="user 2",
            definition={"steps": []},
            input=[2],
            context="new",
            created_at=datetime(2001, 1, 1, tzinfo=UTC),
            updated_at=datetime(2002, 2, 2, tzinfo=UTC),
        )
        await store.create_run(other)
        assert await store.get_run("run") == other

    async def test_creating_again_keeps_the_steps(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        for step_id in ("b", "a"):
            await store.upsert_step("run", a_step(step_id, result=step_id))
        await store.create_run(a_run(input="again"))
        assert await store.list_steps("run") == [a_step("b", result="b"), a_step("a", result="a")]

    async def test_an_update_of_the_context_changes_nothing_else_but_the_time(
        self, store: WorkflowStore
    ) -> None:
        long_ago = datetime(2001, 1, 1, tzinfo=UTC)
        run = a_run(workspace_id="w", input=1, created_at=long_ago, updated_at=long_ago)
        await store.create_run(run)
        before = datetime.now(UTC)
        await store.update_context("run", {"new": [1, 2]})
        changed = await store.get_run("run")
        assert changed is not None
        assert before <= changed.updated_at <= datetime.now(UTC)
        run.context, run.updated_at = {"new": [1, 2]}, changed.updated_at
        assert changed == run

    async def test_a_context_is_replaced_whole(self, store: WorkflowStore) -> None:
        await store.create_run(a_run(context={"old": 1}))
        contexts: tuple[Any, ...] = ({"new": 2}, None, [], 0, "")
        for context in contexts:
            await store.update_context("run", context)
            run = await store.get_run("run")
            assert run is not None
            assert exact(run.context) == exact(context)

    async def test_an_update_of_the_context_needs_the_run(self, store: WorkflowStore) -> None:
        with pytest.raises(RunNotFoundError) as caught:
            await store.update_context("nothing", {})
        assert caught.value.run_task_id == "nothing"
        assert await store.get_run("nothing") is None

    async def test_deleting_a_run_drops_its_steps_and_no_others(self, store: WorkflowStore) -> None:
        for run_task_id in ("run", "other"):
            await store.create_run(a_run(run_task_id))
            await store.upsert_step(run_task_id, a_step())
        await store.delete_run("run")
        assert await store.get_run("run") is None
        assert await store.get_step("run", "step") is None
        assert await store.list_steps("run") == []
        assert await store.get_run("other") is not None
        assert await _ids(store, "other") == ["step"]

    async def test_deleting_a_run_that_is_not_there_is_no_error(self, store: WorkflowStore) -> None:
        await store.delete_run("nothing")
        await store.create_run(a_run())
        await store.delete_run("run")
        await store.delete_run("run")

    async def test_a_run_created_again_after_its_deletion_has_no_steps(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        await store.delete_run("run")
        await store.create_run(a_run())
        assert await store.list_steps("run") == []


class _Steps:
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
        assert await _ids(store) == order

    async def test_the_order_is_that_of_each_run(self, store: WorkflowStore) -> None:
        for run_task_id in ("one", "two"):
            await store.create_run(a_run(run_task_id))
        for run_task_id, step_id in (("one", "b"), ("two", "a"), ("two", "b"), ("one", "a")):
            await store.upsert_step(run_task_id, a_step(step_id))
        assert await _ids(store, "one") == ["b", "a"]
        assert await _ids(store, "two") == ["a", "b"]

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


class _Values:
    @pytest.mark.parametrize("name", HOSTILE_VALUES)
    async def test_a_json_value_comes_back_exactly(self, store: WorkflowStore, name: str) -> None:
        value = HOSTILE_VALUES[name]
        definition = {"steps": value}
        await store.create_run(a_run(definition={}, input=value, context=value))
        if name != "128 levels":  # inside of the definition they would be 129
            await store.create_run(a_run(definition=definition, input=value, context=value))
        await store.upsert_step("run", a_step(result=value))
        run, step = await store.get_run("run"), await store.get_step("run", "step")
        assert run is not None
        assert step is not None
        for found in (run.input, run.context, step.result):
            assert exact(found) == exact(value)
        if name != "128 levels":
            assert exact(run.definition) == exact(definition)
        await store.update_context("run", [])
        if name != "128 levels":
            await store.update_context("run", [value])
            run = await store.get_run("run")
            assert run is not None
            assert exact(run.context) == exact([value])

    @pytest.mark.parametrize("name", FOREIGN_VALUES)
    async def test_what_is_not_json_is_refused_and_nothing_is_written(
        self, store: WorkflowStore, name: str
    ) -> None:
        value, path = FOREIGN_VALUES[name]
        run, step = a_run(context="before"), a_step(result="before")
        await store.create_run(run)
        await store.upsert_step("run", step)
        with pytest.raises(InvalidStateError) as caught:
            await store.update_context("run", value)
        assert f"context{path}" in str(caught.value)
        with pytest.raises(InvalidStateError) as caught:
            await store.upsert_step("run", a_step(result=value))
        assert f"result{path}" in str(caught.value)
        for field in ("input", "context"):
            with pytest.raises(InvalidStateError) as caught:
                await store.create_run(a_run(**{field: value}))
            assert f"{field}{path}" in str(caught.value)
        with pytest.raises(InvalidStateError):
            await store.create_run(a_run(definition={"steps": value}))
        assert await store.get_run("run") == run
        assert await store.list_steps("run") == [step]

    async def test_a_tuple_is_taken_as_an_array(self, store: WorkflowStore) -> None:
        await store.create_run(a_run(context={"a": (1, (2,))}))
        run = await store.get_run("run")
        assert run is not None
        assert run.context == {"a": [1, [2]]}

    @pytest.mark.parametrize("error", ["", "a\0b", "\ud800", "\udc00\ud800", "é😀", "x" * 100_000])
    async def test_an_error_is_any_string(self, store: WorkflowStore, error: str) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(error=error))
        step = await store.get_step("run", "step")
        assert step is not None
        assert step.error == error

    async def test_identifiers_are_compared_byte_by_byte(self, store: WorkflowStore) -> None:
        for identifier in HOSTILE_IDENTIFIERS:
            await store.create_run(a_run(identifier, agent_id=identifier, input=identifier))
            await store.upsert_step(identifier, a_step(identifier, wait_task_id=identifier))
        for identifier in HOSTILE_IDENTIFIERS:
            run = await store.get_run(identifier)
            assert run is not None
            assert (run.run_task_id, run.agent_id, run.input) == (identifier,) * 3
            step = a_step(identifier, wait_task_id=identifier)
            assert await store.list_steps(identifier) == [step]
            assert await store.get_step(identifier, identifier) == step

    @pytest.mark.parametrize("call", [name for name in CALLS if name != "create_run"])
    async def test_a_bad_identifier_is_refused_by_every_method(
        self, store: WorkflowStore, call: str
    ) -> None:
        await store.create_run(a_run())
        for identifier in BAD_IDENTIFIERS:
            with pytest.raises(InvalidStateError):
                await CALLS[call](store, identifier)

    async def test_a_state_of_another_type_is_refused(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        not_runs: tuple[Any, ...] = (None, {}, "run", a_step(), a_run().model_dump())
        for wrong in not_runs:
            with pytest.raises(InvalidStateError):
                await store.create_run(wrong)
        not_steps: tuple[Any, ...] = (None, {}, "step", a_run(), a_step().model_dump())
        for wrong in not_steps:
            with pytest.raises(InvalidStateError):
                await store.upsert_step("run", wrong)
        assert await store.list_steps("run") == []

    async def test_a_field_spoiled_after_construction_is_refused(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        spoiled = [
            WorkflowStepState.model_construct(step_id="a", status="no such status"),
            WorkflowStepState.model_construct(step_id=""),
            a_step().model_copy(update={"started_at": datetime(2026, 1, 1)}),  # noqa: DTZ001
            a_step().model_copy(update={"unknown": 1}),
        ]
        for step in spoiled:
            with pytest.raises(InvalidStateError):
                await store.upsert_step("run", step)
        with pytest.raises(InvalidStateError):
            await store.create_run(a_run().model_copy(update={"agent_id": None}))
        assert await store.list_steps("run") == []

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
            datetime(2026, 1, 1, 0, 0, tzinfo=timezone(-timedelta(hours=23, minutes=59))),
        ],
        ids=str,
    )
    async def test_times_come_back_in_utc_to_the_microsecond(
        self, store: WorkflowStore, moment: datetime
    ) -> None:
        await store.create_run(a_run(created_at=moment, updated_at=moment))
        await store.upsert_step("run", a_step(started_at=moment, completed_at=moment))
        run, step = await store.get_run("run"), await store.get_step("run", "step")
        assert run is not None
        assert step is not None
        for found in (run.created_at, run.updated_at, step.started_at, step.completed_at):
            assert found is not None
            assert (found, found.tzinfo) == (moment, UTC)

    async def test_the_callers_objects_and_the_stores_are_apart(self, store: WorkflowStore) -> None:
        run, step, context = a_run(context={"a": []}), a_step(result={"b": []}), {"c": [0]}
        await store.create_run(run)
        await store.upsert_step("run", step)
        run.context["a"].append("changed")
        step.result["b"].append("changed")
        first, listed = await store.get_run("run"), await store.list_steps("run")
        assert first is not None
        assert (first.context, listed[0].result) == ({"a": []}, {"b": []})
        first.context["a"].append("changed")
        listed[0].result["b"].append("changed")
        listed.clear()
        second, found = await store.get_run("run"), await store.get_step("run", "step")
        assert second is not None
        assert found is not None
        assert (second.context, found.result) == ({"a": []}, {"b": []})
        await store.update_context("run", context)
        context["c"].append(1)
        third = await store.get_run("run")
        assert third is not None
        assert third.context == {"c": [0]}

    async def test_a_large_value_comes_back(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        result = {"text": "é\0😀" * 500_000, "rows": [{"n": n} for n in range(20_000)]}
        await store.upsert_step("run", a_step(result=result))
        step = await store.get_step("run", "step")
        assert step is not None
        assert step.result == result


class _Concurrency:
    async def test_writes_made_at_once_all_arrive_in_one_order(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        names = [f"step {n}" for n in range(50)]
        await asyncio.gather(*(store.upsert_step("run", a_step(name)) for name in names))
        first, second = await asyncio.gather(_ids(store), _ids(store))
        assert sorted(first) == sorted(names)
        assert first == second

    async def test_writes_awaited_one_after_the_other_keep_their_order_beside_others(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())

        async def write(task: int) -> None:
            for n in range(10):
                await store.upsert_step("run", a_step(f"{task}:{n}"))

        await asyncio.gather(*(write(task) for task in range(8)))
        ids = await _ids(store)
        for task in range(8):
            mine = [step_id for step_id in ids if step_id.startswith(f"{task}:")]
            assert mine == [f"{task}:{n}" for n in range(10)]

    async def test_a_step_first_written_by_many_at_once_is_one_step(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await asyncio.gather(
            *(store.upsert_step("run", a_step(result=n, error=str(n))) for n in range(30))
        )
        (step,) = await store.list_steps("run")
        assert step.error == str(step.result)

    async def test_a_write_to_a_missing_run_fails_alone(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        outcomes = await asyncio.gather(
            *(store.upsert_step("run" if n % 2 else "nothing", a_step(f"{n}")) for n in range(20)),
            return_exceptions=True,
        )
        for n, outcome in enumerate(outcomes):
            assert outcome is None if n % 2 else isinstance(outcome, RunNotFoundError)
        assert sorted(await _ids(store)) == sorted(f"{n}" for n in range(20) if n % 2)

    async def test_a_run_deleted_while_its_steps_are_written_leaves_none(
        self, store: WorkflowStore
    ) -> None:
        for _ in range(5):
            await store.create_run(a_run())
            outcomes = await asyncio.gather(
                *(store.upsert_step("run", a_step(f"{n}")) for n in range(10)),
                store.delete_run("run"),
                *(store.upsert_step("run", a_step(f"{n}")) for n in range(10, 20)),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} <= {type(None), RunNotFoundError}
            assert await store.list_steps("run") == []

    async def test_a_cancelled_call_is_whole_or_not_at_all_and_the_store_goes_on(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for n in range(20):
            task = asyncio.ensure_future(
                store.upsert_step("run", a_step("cancelled", result=n, error=str(n)))
            )
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await store.upsert_step("run", a_step("next", result=n))
            step = await store.get_step("run", "next")
            assert step is not None
            assert step.result == n
            cancelled = await store.get_step("run", "cancelled")
            assert cancelled is None or cancelled.error == str(cancelled.result)


class _Life:
    @pytest.mark.parametrize("call", CALLS)
    async def test_a_closed_store_refuses_every_call(self, store: WorkflowStore, call: str) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await CALLS[call](store, "run")
        finally:
            await store.open()

    async def test_opening_and_closing_twice_is_no_error(self, store: WorkflowStore) -> None:
        await store.open()
        await store.create_run(a_run())
        await store.open()
        assert await store.get_run("run") is not None
        await store.close()
        await store.close()
        await store.open()
        await store.create_run(a_run())

    async def test_closing_completes_the_calls_that_were_made_before(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        tasks = [asyncio.ensure_future(store.upsert_step("run", a_step(f"{n}"))) for n in range(10)]
        await asyncio.sleep(0)
        await store.close()
        try:
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks), timeout=60)
            assert outcomes == [None] * 10
        finally:
            await store.open()


@pytest.mark.asyncio
class WorkflowStoreContract(_Runs, _Steps, _Values, _Concurrency, _Life):
    """What every `WorkflowStore` promises.

    A subclass gives a fixture `store`: the store, open and empty, for one test. With
    pytest-asyncio in strict mode, make it with `pytest_asyncio.fixture`.
    """
