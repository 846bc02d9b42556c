"""Between state objects and rows: the one module that knows both."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from .. import json_codec
from ..errors import WorkflowStoreError
from ..state import JsonValue, WorkflowExecutionState, WorkflowStepState

__all__ = ["context_text", "run_from_row", "run_values", "step_from_row", "step_values"]

_RUN_JSON = ("definition", "input", "context")
_STEP_JSON = ("result", "error")


def run_values(state: WorkflowExecutionState) -> dict[str, Any]:
    """Give the column values of a run that was checked.

    Raises:
        InvalidStateError: a JSON field is not JSON.
    """
    values = dict(state)
    for name in _RUN_JSON:
        values[name] = json_codec.encode(values[name], field=name)
    return values


def context_text(context: JsonValue) -> str:
    """Give the column value of a context.

    Raises:
        InvalidStateError: it is not JSON.
    """
    return json_codec.encode(context, field="context")


def step_values(run_task_id: str, step: WorkflowStepState) -> dict[str, Any]:
    """Give the column values of a step that was checked.

    Raises:
        InvalidStateError: its result is not JSON.
    """
    values = dict(step)
    for name in _STEP_JSON:
        if values[name] is not None:
            values[name] = json_codec.encode(values[name], field=name)
    values["status"] = step.status.value
    values["run_task_id"] = run_task_id
    return values


def run_from_row(row: RowMapping) -> WorkflowExecutionState:
    """Give the run of a row.

    Raises:
        WorkflowStoreError: the row was not written by a store.
    """
    try:
        values = dict(row)
        for name in _RUN_JSON:
            values[name] = json_codec.decode(values[name])
        return WorkflowExecutionState(**values)
    except (TypeError, ValueError) as error:
        raise _damaged(f"run {row['run_task_id']!r}") from error


def step_from_row(run_task_id: str, row: RowMapping) -> WorkflowStepState:
    """Give the step of a row.

    Raises:
        WorkflowStoreError: the row was not written by a store.
    """
    try:
        values = dict(row)
        for name in _STEP_JSON:
            if values[name] is not None:
                values[name] = json_codec.decode(values[name])
        return WorkflowStepState(**values)
    except (TypeError, ValueError) as error:
        raise _damaged(f"step {row['step_id']!r} of run {run_task_id!r}") from error


def _damaged(what: str) -> WorkflowStoreError:
    return WorkflowStoreError(
        f"The stored row of {what} is damaged or was changed by another program: it holds "
        "what no store writes. Mend the row, restore it from a backup, or delete the run."
    )
