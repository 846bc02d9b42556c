"""Conversion between state objects and rows, by column name.

The order of the values in a row is that of the column lists in `workflow_store.sql.models`.
Building a row raises `InvalidStateError` if a value breaks the rules; reading one raises
`WorkflowStoreError` if no store wrote it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import Column

from .. import json_codec
from ..state import (
    JsonValue,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
)
from ..store import RunClaim, RunSnapshot
from ..validation import validated_identifier, validated_run, validated_step
from .dialects import StoreDialect
from .errors import corrupt_row_error
from .group_commit import Row
from .models import COMMIT_COLUMNS, CONTEXT_COLUMNS, RUN_COLUMNS, STEP_COLUMNS, STEP_VALUES

__all__ = [
    "commit_row", "context_row", "renewal_row", "run_from_row", "run_key", "run_row",
    "snapshot_from_rows", "step_from_row", "step_row", "steps_from_rows",
]  # fmt: skip


def _row_builder(columns: Sequence[Column[Any]]) -> Callable[[Mapping[str, Any]], Row]:
    return itemgetter(*[column.name for column in columns])


_run_row, _context_row, _step_row, _commit_row = map(
    _row_builder, (RUN_COLUMNS, CONTEXT_COLUMNS, STEP_COLUMNS, COMMIT_COLUMNS)
)
_RUN_NAMES = [column.name for column in RUN_COLUMNS]
_STEP_NAMES = [column.name for column in STEP_VALUES]
# The indices of a step's values: a dict by name would take a third of the decoding.
_STEP_ID, _STATUS, _RESULT, _ERROR, _STARTED_AT, _COMPLETED_AT, _WAIT_TASK_ID = (
    _STEP_NAMES.index(name)
    for name in (
        "step_id", "status", "result", "error", "started_at", "completed_at", "wait_task_id",
    )
)  # fmt: skip
_STATUSES = {status.value: status for status in TaskStatus}

_STEP_FIELDS = frozenset(WorkflowStepState.model_fields)
_NO_PRIVATE = WorkflowStepState(step_id="any").__pydantic_private__
_new = object.__new__
_set = object.__setattr__


def run_row(dialect: StoreDialect, state: WorkflowExecutionState) -> Row:
    """Return the row of a run."""
    state = validated_run(state)
    values = {
        **vars(state),
        **{
            name: json_codec.encode_stored(getattr(state, name), field=name)
            for name in ("definition", "input", "context")
        },
        "created_at": dialect.encode_datetime(state.created_at),
        "updated_at": dialect.encode_datetime(state.updated_at),
    }
    return _run_row(values)


def run_key(dialect: StoreDialect, run_task_id: str) -> Row:
    """Return the key of a run."""
    return (validated_identifier(run_task_id, name="run_task_id"),)


def context_row(dialect: StoreDialect, run_task_id: str, context: JsonValue) -> Row:
    """Return the row of an update of a context, made now."""
    run_task_id = validated_identifier(run_task_id, name="run_task_id")
    return _context_row({"run_task_id": run_task_id, **_context_values(dialect, context)})


def step_row(dialect: StoreDialect, run_task_id: str, step: WorkflowStepState) -> Row:
    """Return the row of a step."""
    return _step_row(_step_values(dialect, run_task_id, step))


def commit_row(
    dialect: StoreDialect, run_task_id: str, step: WorkflowStepState, context: JsonValue
) -> Row:
    """Return the row of a step and of the context of its run, made now."""
    values = _step_values(dialect, run_task_id, step)
    values.update(_context_values(dialect, context))
    return _commit_row(values)


def renewal_row(dialect: StoreDialect, claim: RunClaim) -> Row:
    """Return the row of a renewal."""
    return claim.run_task_id, claim.token, claim.lease_s


def _context_values(dialect: StoreDialect, context: JsonValue) -> dict[str, Any]:
    return {
        "context": json_codec.encode_stored(context, field="context"),
        "updated_at": dialect.encode_datetime(datetime.now(UTC)),
    }


def _step_values(
    dialect: StoreDialect, run_task_id: str, step: WorkflowStepState
) -> dict[str, Any]:
    run_task_id = validated_identifier(run_task_id, name="run_task_id")
    step = validated_step(step)
    result, error = step.result, step.error
    started_at, completed_at = step.started_at, step.completed_at
    return {
        "run_task_id": run_task_id,
        "step_id": step.step_id,
        "status": step.status.value,
        "result": None if result is None else json_codec.encode_stored(result, field="result"),
        "error": None if error is None else json_codec.encode_stored(error, field="error"),
        "started_at": None if started_at is None else dialect.encode_datetime(started_at),
        "completed_at": None if completed_at is None else dialect.encode_datetime(completed_at),
        "wait_task_id": step.wait_task_id,
    }


def run_from_row(row: Row, dialect: StoreDialect) -> WorkflowExecutionState:
    """Return the run of a row of `RUN_COLUMNS`."""
    values = dict(zip(_RUN_NAMES, row, strict=True))
    try:
        for name in ("definition", "input", "context"):
            values[name] = json_codec.decode_stored(values[name])
        for name in ("created_at", "updated_at"):
            values[name] = dialect.decode_datetime(values[name])
        return WorkflowExecutionState(**values)
    except (TypeError, ValueError) as error:
        raise corrupt_row_error(f"run {row[0]!r}") from error


def step_from_row(run_task_id: str, row: Row, dialect: StoreDialect) -> WorkflowStepState:
    """Return the step of a row of `STEP_VALUES`."""
    try:
        result, error, wait_task_id = row[_RESULT], row[_ERROR], row[_WAIT_TASK_ID]
        started_at, completed_at = row[_STARTED_AT], row[_COMPLETED_AT]
        return _trusted_step(
            {
                "step_id": validated_identifier(row[_STEP_ID], name="step_id"),
                "status": _STATUSES[row[_STATUS]],
                "result": None if result is None else json_codec.decode_stored(result),
                "error": None if error is None else _string(json_codec.decode_stored(error)),
                "started_at": None if started_at is None else dialect.decode_datetime(started_at),
                "completed_at": (
                    None if completed_at is None else dialect.decode_datetime(completed_at)
                ),
                "wait_task_id": (
                    None
                    if wait_task_id is None
                    else validated_identifier(wait_task_id, name="wait_task_id")
                ),
            }
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise corrupt_row_error(f"step {row[_STEP_ID]!r} of run {run_task_id!r}") from cause


def _trusted_step(fields: dict[str, Any]) -> WorkflowStepState:
    """Return a step of fields that were validated when they were stored.

    This takes a third of the time of validation, and less than `model_construct`, which matters
    when a run of a thousand steps is loaded.

    Args:
        fields: all fields by name. The step takes over the dict.
    """
    step: WorkflowStepState = _new(WorkflowStepState)
    _set(step, "__dict__", fields)
    # The slots that pydantic's `model_construct` sets. Its versions differ in the value of the
    # last one for a model without private attributes.
    _set(step, "__pydantic_fields_set__", set(_STEP_FIELDS))
    _set(step, "__pydantic_extra__", None)
    _set(step, "__pydantic_private__", None if _NO_PRIVATE is None else {})
    return step


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


async def steps_from_rows(
    run_task_id: str, rows: Sequence[Row], dialect: StoreDialect
) -> list[WorkflowStepState]:
    """Return the steps of many rows; other tasks run in between."""
    steps: list[WorkflowStepState] = []
    while True:
        turn_ends = time.perf_counter() + _TURN_S
        for row in rows[len(steps) :]:
            steps.append(step_from_row(run_task_id, row, dialect))
            if time.perf_counter() > turn_ends:
                break
        if len(steps) == len(rows):
            return steps
        await asyncio.sleep(0)


async def snapshot_from_rows(
    run_task_id: str, rows: Sequence[Row], dialect: StoreDialect
) -> RunSnapshot | None:
    """Return the run and its steps of the rows of `Statements.load_run`."""
    if not rows:
        return None
    run_row, *step_rows = rows
    width = len(RUN_COLUMNS)
    if dialect.reads_in_one_statement:
        run_row, step_rows = run_row[:width], [row[width:-1] for row in step_rows]
    if len(run_row) != width or run_row[0] is None:  # a step, whose run does not exist
        return None
    run = run_from_row(run_row, dialect)
    return RunSnapshot(run, await steps_from_rows(run_task_id, step_rows, dialect))


_TURN_S = 0.001
"""How long decoding may hold the event loop, unless a single value takes longer."""
