"""Tests of field values: which are stored without loss, and which are rejected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ...errors import InvalidStateError
from ...state import WorkflowStepState
from ...store import WorkflowStore
from ..samples import (
    BAD_IDENTIFIERS,
    CALLS,
    FOREIGN_VALUES,
    HOSTILE_IDENTIFIERS,
    HOSTILE_VALUES,
    a_run,
    a_step,
    exact,
)

__all__ = ["Values"]


class Values:
    """Values come back equal to what went in; anything else is rejected before it is written."""

    large_value_bytes: int = 6_000_000

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
        for stored in (run.input, run.context, step.result):
            assert exact(stored) == exact(value)
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
        """A write validates its argument, even if it was valid when it was created."""
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
        for time in (run.created_at, run.updated_at, step.started_at, step.completed_at):
            assert time is not None
            assert (time, time.tzinfo) == (moment, UTC)

    async def test_the_callers_objects_and_the_stores_are_apart(self, store: WorkflowStore) -> None:
        """Changing an object that was passed in or returned never changes the store."""
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
        second, stored_step = await store.get_run("run"), await store.get_step("run", "step")
        assert second is not None
        assert stored_step is not None
        assert (second.context, stored_step.result) == ({"a": []}, {"b": []})
        await store.update_context("run", context)
        context["c"].append(1)
        third = await store.get_run("run")
        assert third is not None
        assert third.context == {"c": [0]}

    async def test_a_large_value_comes_back(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        result = {
            "text": "é\0😀" * (self.large_value_bytes // 12),  # 12 bytes, since NUL is escaped
            "rows": [{"n": n} for n in range(self.large_value_bytes // 300)],
        }
        await store.upsert_step("run", a_step(result=result))
        step = await store.get_step("run", "step")
        assert step is not None
        assert step.result == result
