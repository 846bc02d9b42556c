"""Runs and steps that carry a mark in every field, which shows whether they are whole."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime

from workflow_store import (
    ResumableWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
)

CREATED_AT = "2026-01-01T00:00:00Z"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def run(run_task_id: str, mark: int = 0) -> WorkflowExecutionState:
    """Return a run with a mark in every field."""
    return WorkflowExecutionState.model_validate(
        {
            "run_task_id": run_task_id,
            "agent_id": f"agent-{mark}",
            "thread_id": f"thread-{mark}",
            "user_id": f"user-{mark}",
            "workspace_id": f"workspace-{mark}",
            "entry_point": f"entry-{mark}",
            "definition": {"mark": mark, "text": "d" * 2000},
            "input": {"mark": mark, "text": "i" * 2000},
            "context": {"mark": mark, "text": "c" * 2000},
            "created_at": CREATED_AT,
            "updated_at": CREATED_AT,
        }
    )


def step(step_id: str, mark: int = 0) -> WorkflowStepState:
    return WorkflowStepState(
        step_id=step_id,
        result={"mark": mark, "text": "r" * 2000},
        error=f"error-{mark}",
        wait_task_id=f"wait-{mark}",
    )


def check_run(found: WorkflowExecutionState | None) -> int | None:
    """Assert that a run is whole, and return the mark of its `create_run`."""
    if found is None:
        return None
    mark = int(found.agent_id.removeprefix("agent-"))
    assert found.context == {"mark": found.context["mark"], "text": "c" * 2000}
    expected = run(found.run_task_id, mark).model_copy(
        update={"context": found.context, "updated_at": found.updated_at}
    )
    assert found == expected
    return mark


def check_step(found: WorkflowStepState | None) -> int | None:
    if found is None:
        return None
    mark = int(found.result["mark"])
    assert found == step(found.step_id, mark)
    return mark


def a_write(store: ResumableWorkflowStore, name: str, mark: int) -> Awaitable[None]:
    match name:
        case "create_run":
            return store.create_run(run("r", mark))
        case "update_context":
            return store.update_context("r", {"mark": mark, "text": "c" * 2000})
        case "upsert_step":
            return store.upsert_step("r", step("s", mark))
        case "commit_step":
            return store.commit_step("r", step("s", mark), {"mark": mark, "text": "c" * 2000})
        case _:
            return store.delete_run("r")


def a_read(store: ResumableWorkflowStore, name: str) -> Awaitable[object]:
    match name:
        case "get_run":
            return store.get_run("r")
        case "get_step":
            return store.get_step("r", "s")
        case "list_steps":
            return store.list_steps("r")
        case "load_run":
            return store.load_run("r")
        case "find_waiting_step":
            return store.find_waiting_step("wait-7")
        case _:
            return store.list_runs(user_id="user-7", step_status=TaskStatus.PENDING)


READS = ("get_run", "get_step", "list_steps", "load_run", "find_waiting_step", "list_runs")
WRITES = ("create_run", "update_context", "upsert_step", "commit_step", "delete_run")
