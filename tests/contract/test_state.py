"""The state objects and their wire form."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from workflow_store import InvalidStateError, TaskStatus, WorkflowExecutionState, WorkflowStepState
from workflow_store.testing.samples import (
    FOREIGN_VALUES,
    HOSTILE_IDENTIFIERS,
    HOSTILE_VALUES,
    a_run,
    a_step,
    exact,
)

NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def test_the_statuses_are_those_of_the_contract() -> None:
    """Six words, of which three are the end."""
    assert [str(status) for status in TaskStatus] == [
        "pending", "running", "input_required", "completed", "failed", "canceled",
    ]  # fmt: skip
    assert [s for s in TaskStatus if s.is_terminal] == ["completed", "failed", "canceled"]


def test_a_run_has_the_defaults_of_the_contract() -> None:
    """What may be left out."""
    before = datetime.now(UTC)
    run = a_run()
    assert (run.workspace_id, run.entry_point, run.input, run.context) == (None, None, {}, {})
    assert before <= run.created_at <= run.updated_at <= datetime.now(UTC)
    assert run.created_at.tzinfo is UTC
    assert a_run().context is not run.context


def test_a_step_has_the_defaults_of_the_contract() -> None:
    """Only its id is needed."""
    assert WorkflowStepState(step_id="s").model_dump() == {
        "step_id": "s", "status": TaskStatus.PENDING, "result": None, "error": None,
        "started_at": None, "completed_at": None, "wait_task_id": None,
    }  # fmt: skip


@pytest.mark.parametrize("field", ["run_task_id", "agent_id", "thread_id", "user_id", "definition"])
def test_a_required_field_of_a_run_is_required(field: str) -> None:
    """Without it there is no run."""
    fields = a_run().model_dump()
    del fields[field]
    with pytest.raises(ValidationError):
        WorkflowExecutionState(**fields)


def test_the_wire_form_is_that_of_the_contract() -> None:
    """Names, times and order of the fields; what is None is left out."""
    run = a_run(created_at=NOON, updated_at=NOON.replace(microsecond=0), input=None)
    assert run.model_dump_json() == (
        '{"run_task_id":"run","agent_id":"agent","thread_id":"thread","user_id":"user",'
        '"definition":{"steps":[{"id":"fetch"}]},"input":null,"context":{},'
        '"created_at":"2026-01-31T12:00:00.123456Z","updated_at":"2026-01-31T12:00:00Z"}'
    )
    assert a_step().model_dump_json() == '{"step_id":"step","status":"pending"}'
    full = a_step(
        status="failed", result=[1.0], error="\0\ud800", started_at=NOON, completed_at=NOON,
        wait_task_id="w",
    )  # fmt: skip
    assert full.model_dump_json() == (
        '{"step_id":"step","status":"failed","result":[1.0],"error":"\\u0000\\ud800",'
        '"started_at":"2026-01-31T12:00:00.123456Z","completed_at":'
        '"2026-01-31T12:00:00.123456Z","wait_task_id":"w"}'
    )
    for state in (run, full):
        assert type(state).model_validate_json(state.model_dump_json()) == state
        assert type(state).model_validate_json(state.model_dump_json().encode()) == state


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_the_wire_form_is_lossless(name: str) -> None:
    """Any JSON value survives it."""
    step = a_step(result=HOSTILE_VALUES[name])
    read = WorkflowStepState.model_validate_json(step.model_dump_json())
    assert exact(read.result) == exact(step.result)


@pytest.mark.parametrize("name", FOREIGN_VALUES)
def test_the_wire_form_refuses_what_is_not_json(name: str) -> None:
    """And names the field and the path, as a write does."""
    value, path = FOREIGN_VALUES[name]
    with pytest.raises(InvalidStateError) as caught:
        a_step(result=value).model_dump_json()
    assert f"result{path}" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", '{"step_id":"s"', '{"step_id":"s","result":NaN}', '{"status":"failed"}',
        '{"step_id":"s","result":1e999}', '{"step_id":"s","step_id":"t"}', b"\xff",
        '{"step_id":"s","result":1' + "0" * 4300 + "}",
        '{"step_id":"s","started_at":"2026-01-31T12:00:00"}', '{"step_id":"s","typo":1}',
        '{"step_id":"s","started_at":"1700000000"}', '{"step_id":"s","started_at":1700000000}',
        '{"step_id":"s","started_at":"0000-01-01T00:00:00Z"}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_such_a_state_is_a_validation_error(text: str | bytes) -> None:
    """On the wire as at construction."""
    with pytest.raises(ValidationError):
        WorkflowStepState.model_validate_json(text)


def test_an_error_shows_no_payload() -> None:
    """The message names the field, not its value."""
    with pytest.raises(ValidationError) as caught:
        a_step("S3CR3T\0", result="S3CR3T", wait_task_id=["S3CR3T"], S3="S3CR3T")
    assert "S3CR3T" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        WorkflowStepState.model_validate_json('{"step_id":"s","result":"S3CR3T')
    assert "S3CR3T" not in str(caught.value)


@pytest.mark.parametrize("identifier", HOSTILE_IDENTIFIERS)
def test_any_identifier_within_the_bounds_is_taken(identifier: str) -> None:
    """Up to 1,024 bytes of any Unicode but NUL and surrogates."""
    assert a_step(identifier, wait_task_id=identifier).step_id == identifier


@pytest.mark.parametrize(
    "identifier", ["", "\0", "a\0", "\ud800", "x" * 1025, "é" * 513, None, 1, b"a", ["a"]]
)
@pytest.mark.parametrize("field", ["run_task_id", "agent_id", "thread_id", "user_id"])
def test_a_bad_identifier_is_refused_at_construction(field: str, identifier: Any) -> None:
    """In every field that holds one."""
    with pytest.raises(ValidationError):
        a_run(**{field: identifier})


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - naive is what is refused
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, 30, tzinfo=timezone(-timedelta(hours=1))),
        "2026-01-01", "2026-01-01T00:00:00", "2026-W01-1T00:00:00Z", "", "now", 0, 1.5, NOON.date(),
    ],
)  # fmt: skip
def test_a_time_that_is_naive_or_not_in_utc_s_range_is_refused(moment: Any) -> None:
    """Nothing is guessed: no zone, no number of seconds."""
    with pytest.raises(ValidationError):
        a_step(started_at=moment)


def test_a_time_becomes_a_plain_datetime_in_utc() -> None:
    """Also from a subclass, another zone, or RFC 3339 in its looser spellings."""

    class Stamp(datetime):
        pass

    for moment in (
        Stamp(2026, 1, 31, 12, 0, 0, 123456, UTC),
        NOON.astimezone(timezone(-timedelta(hours=3, minutes=17))),
        "2026-01-31t12:00:00.123456z",
        "2026-01-31 13:00:00.1234569+01:00",
    ):
        found = a_step(started_at=moment).started_at
        assert (type(found), found, found and found.tzinfo) == (datetime, NOON, UTC)


def test_an_unknown_field_is_refused() -> None:
    """A typo is an error, not a lost value; later, too."""
    with pytest.raises(ValidationError):
        a_step(reslt=1)
    step = a_step()
    with pytest.raises(ValueError, match="reslt"):
        step.reslt = 1  # type: ignore[attr-defined]


def test_an_assignment_is_checked_like_the_construction() -> None:
    """A bad value leaves the state as it was."""
    step = a_step()
    step.status = TaskStatus.RUNNING
    with pytest.raises(ValidationError):
        step.status = "started"  # type: ignore[assignment]
    with pytest.raises(ValidationError):
        step.error = "\ud83d\ude00"
    assert step == a_step(status="running")


@pytest.mark.parametrize("definition", [None, [], "x", 1, [("a", 1)]])
def test_a_definition_is_an_object(definition: Any) -> None:
    """Nothing else is coerced into one."""
    with pytest.raises(ValidationError):
        a_run(definition=definition)


def test_the_json_mode_of_pydantic_leaves_out_what_is_none() -> None:
    """As frameworks dump states that way, inside of other models too."""
    assert a_step(result=1).model_dump(mode="json") == {
        "step_id": "step", "status": "pending", "result": 1,
    }  # fmt: skip
    assert json.loads(json.dumps(a_run(created_at=NOON).model_dump(mode="json")))[
        "created_at"
    ].endswith("Z")


def test_a_state_can_be_copied_and_pickled() -> None:
    """Between processes, for instance."""
    run = a_run(input=[1, {"a": "\ud800"}])
    assert pickle.loads(pickle.dumps(run)) == run == copy.deepcopy(run)
