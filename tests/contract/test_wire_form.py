"""The wire form that is shared with the Rust crate `distri-workflow`.

`distri-states.jsonl` has a run and a step as the serializer of the crate wrote them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from workflow_store import TaskStatus, WorkflowExecutionState, WorkflowStepState
from workflow_store.testing.samples import exact

RUN, STEP = Path(__file__).with_name("distri-states.jsonl").read_text().splitlines()
TIME = "2026-11-26T05:26:43.173242379Z"
TRUNCATED = datetime(2026, 11, 26, 5, 26, 43, 173242, UTC)


def test_a_run_of_the_rust_crate_is_read() -> None:
    """Every field; only the times lose their nanoseconds."""
    run = WorkflowExecutionState.model_validate_json(RUN)
    assert (run.run_task_id, run.agent_id, run.thread_id, run.user_id) == ("run-1", "a", "t", "u")
    assert (run.workspace_id, run.entry_point) == (None, "main")
    assert exact(run.definition) == exact(
        {
            "id": "wf",
            "steps": [
                {
                    "id": "c", "label": "C", "kind": {"type": "checkpoint", "message": "ok"},
                    "depends_on": [], "execution": "sequential", "requires": [],
                }
            ],
            "checkpoint": {"type": "internal"},
        }
    )  # fmt: skip
    assert exact(run.input) == exact({"x": 1})
    assert exact(run.context) == exact(
        {"a": 1e16, "f": 0.1, "m": -(2**63), "n": 2**64 - 1, "neg": -0.0, "nul": "a\0b", "z": 1}
    )
    assert (run.created_at, run.updated_at) == (TRUNCATED, TRUNCATED)


def test_a_step_of_the_rust_crate_is_read() -> None:
    """Every field; the crate writes a missing result as null."""
    assert WorkflowStepState.model_validate_json(STEP) == WorkflowStepState(
        step_id="c",
        status=TaskStatus.INPUT_REQUIRED,
        result=None,
        error="x\0y",
        started_at=TRUNCATED,
        completed_at=None,
        wait_task_id="w",
    )


@pytest.mark.parametrize(
    ("line", "kind"), [(RUN, WorkflowExecutionState), (STEP, WorkflowStepState)]
)
def test_a_state_of_the_rust_crate_is_written_back_in_the_same_form(line: str, kind: Any) -> None:
    """The same names and values, times with `Z`, and no optional field that is None."""
    theirs = json.loads(line.replace(TIME, "2026-11-26T05:26:43.173242Z"))
    ours = json.loads(kind.model_validate_json(line).model_dump_json())
    assert {name: exact(value) for name, value in ours.items()} == {
        name: exact(value) for name, value in theirs.items() if value is not None
    }


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (2**64, "18446744073709551616"),
        ("\ud800", '"\\ud800"'),
        ({"z": 1, "a": 2}, '{"z":1,"a":2}'),
        (5e-324, "5e-324"),
    ],
    ids=["an integer beyond 64 bits", "a lone surrogate", "keys out of order", "the least float"],
)
def test_a_value_that_the_rust_crate_would_change_is_kept(result: Any, text: str) -> None:
    """Our own reader and writer lose nothing."""
    line = f'{{"step_id":"s","status":"completed","result":{text}}}'
    step = WorkflowStepState.model_validate_json(line)
    assert exact(step.result) == exact(result)
    assert step.model_dump_json() == line
