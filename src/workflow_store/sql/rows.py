"""Between state objects and rows: the one module that knows both.

A row is a tuple of what the driver takes and gives, in the order of the columns in
`workflow_store.sql.statements`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from .. import json_codec
from ..errors import WorkflowStoreError
from ..state import JsonValue, WorkflowExecutionState, WorkflowStepState
from .dialects import StoreDialect

__all__ = [
    "context_row",
    "run_from_row",
    "run_row",
    "size_of",
    "step_from_row",
    "step_of_snapshot",
    "step_row",
    "steps_from_rows",
]

Row = Sequence[Any]


def run_row(state: WorkflowExecutionState, dialect: StoreDialect) -> Row:
    """Give the row of a run that was checked.

    Raises:
        InvalidStateError: a JSON field is not JSON.
    """
    return (
        state.run_task_id,
        state.agent_id,
        state.thread_id,
        state.user_id,
        state.workspace_id,
        state.entry_point,
        json_codec.encode_stored(state.definition, field="definition"),
        json_codec.encode_stored(state.input, field="input"),
        json_codec.encode_stored(state.context, field="context"),
        dialect.time_to_driver(state.created_at),
        dialect.time_to_driver(state.updated_at),
    )


def context_row(
    run_task_id: str, context: JsonValue, updated_at: datetime, dialect: StoreDialect
) -> Row:
    """Give the row of an update of a context.

    Raises:
        InvalidStateError: the context is not JSON.
    """
    text = json_codec.encode_stored(context, field="context")
    return run_task_id, text, dialect.time_to_driver(updated_at)


def step_row(run_task_id: str, step: WorkflowStepState, dialect: StoreDialect) -> Row:
    """Give the row of a step that was checked.

    Raises:
        InvalidStateError: its result is not JSON.
    """
    return (
        run_task_id,
        step.step_id,
        step.status.value,
        None if step.result is None else json_codec.encode_stored(step.result, field="result"),
        None if step.error is None else json_codec.encode_stored(step.error, field="error"),
        dialect.time_to_driver(step.started_at),
        dialect.time_to_driver(step.completed_at),
        step.wait_task_id,
    )


def size_of(row: Row) -> int:
    """Give the characters of a row, which is about what it weighs."""
    return sum(len(value) for value in row if type(value) is str)


def run_from_row(row: Row, dialect: StoreDialect) -> WorkflowExecutionState:
    """Give the run of a row.

    Raises:
        WorkflowStoreError: the row was not written by a store.
    """
    try:
        return WorkflowExecutionState(
            run_task_id=row[0],
            agent_id=row[1],
            thread_id=row[2],
            user_id=row[3],
            workspace_id=row[4],
            entry_point=row[5],
            definition=json_codec.decode_stored(row[6]),
            input=json_codec.decode_stored(row[7]),
            context=json_codec.decode_stored(row[8]),
            created_at=dialect.time_from_driver(row[9]),
            updated_at=dialect.time_from_driver(row[10]),
        )
    except (TypeError, ValueError) as error:
        raise _damaged(f"run {row[0]!r}") from error


def step_from_row(run_task_id: str, row: Row, dialect: StoreDialect) -> WorkflowStepState:
    """Give the step of a row, which is without the id of the run.

    Raises:
        WorkflowStoreError: the row was not written by a store.
    """
    try:
        return WorkflowStepState(
            step_id=row[0],
            status=row[1],
            result=None if row[2] is None else json_codec.decode_stored(row[2]),
            error=None if row[3] is None else json_codec.decode_stored(row[3]),
            started_at=dialect.time_from_driver(row[4]),
            completed_at=dialect.time_from_driver(row[5]),
            wait_task_id=row[6],
        )
    except (TypeError, ValueError) as error:
        raise _damaged(f"step {row[0]!r} of run {run_task_id!r}") from error


def step_of_snapshot(row: Row) -> Row:
    """Give the row of a step out of one that is as wide as a run's, with `seq` before it."""
    step_id, status, result, error, wait_task_id = row[1:6]
    return step_id, status, result, error, *row[-2:], wait_task_id


async def steps_from_rows(
    run_task_id: str, rows: Sequence[Row], dialect: StoreDialect
) -> list[WorkflowStepState]:
    """Do the same for many rows, letting the event loop go on in between."""
    steps: list[WorkflowStepState] = []
    while True:
        with _collection_paused():
            turn_ends = time.perf_counter() + _TURN_S
            while len(steps) < len(rows) and time.perf_counter() < turn_ends:
                steps.append(step_from_row(run_task_id, rows[len(steps)], dialect))
        if len(steps) == len(rows):
            return steps
        await asyncio.sleep(0)


_TURN_S = 0.002
"""How long decoding may keep the event loop, but for one value that takes longer."""


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running again and again over objects that all live.

    A thousand steps are enough new objects to start it dozens of times, and a full
    collection of a large program in the midst of it costs tens of milliseconds.
    """
    if not gc.isenabled():  # somebody else's choice, or another thread's turn
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _damaged(what: str) -> WorkflowStoreError:
    return WorkflowStoreError(
        f"The stored row of {what} is damaged or was changed by another program: it holds "
        "what no store writes. Mend the row, restore it from a backup, or delete the run."
    )
