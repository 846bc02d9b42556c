"""Between state objects and rows: the one module that knows both.

A row is a tuple of what the driver takes and gives, in the order of the columns in
`workflow_store.sql.queries.statements`. A row that was read begins with the texts and ends with the
two times; what lies between them does not matter here.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from .. import json_codec
from ..errors import WorkflowStoreError
from ..state import JsonValue, TaskStatus, WorkflowExecutionState, WorkflowStepState, trusted_step
from ..store import RunClaim
from ..validation import validated_identifier, validated_run, validated_step
from .dialects import StoreDialect

__all__ = [
    "commit_row",
    "context_row",
    "fenced_row",
    "renewal_row",
    "run_from_row",
    "run_key",
    "run_row",
    "step_from_row",
    "step_row",
    "steps_from_rows",
]

Row = Sequence[Any]


def run_row(dialect: StoreDialect, state: WorkflowExecutionState) -> Row:
    """Give the row of a run.

    Raises:
        InvalidStateError: a field breaks the rules.
    """
    state = validated_run(state)
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
        dialect.encode_datetime(state.created_at),
        dialect.encode_datetime(state.updated_at),
    )


def run_key(dialect: StoreDialect, run_task_id: str) -> Row:
    """Give the row that only names a run.

    Raises:
        InvalidStateError: it is no identifier.
    """
    return (validated_identifier(run_task_id, name="run_task_id"),)


def context_row(dialect: StoreDialect, run_task_id: str, context: JsonValue) -> Row:
    """Give the row of an update of a context, at this moment.

    Raises:
        InvalidStateError: the context is not JSON.
    """
    run_task_id = validated_identifier(run_task_id, name="run_task_id")
    text = json_codec.encode_stored(context, field="context")
    return run_task_id, text, dialect.encode_datetime(datetime.now(UTC))


def step_row(dialect: StoreDialect, run_task_id: str, step: WorkflowStepState) -> Row:
    """Give the row of a step.

    Raises:
        InvalidStateError: a field breaks the rules.
    """
    run_task_id = validated_identifier(run_task_id, name="run_task_id")
    step = validated_step(step)
    return (
        run_task_id,
        step.step_id,
        step.status.value,
        None if step.result is None else json_codec.encode_stored(step.result, field="result"),
        None if step.error is None else json_codec.encode_stored(step.error, field="error"),
        None if step.started_at is None else dialect.encode_datetime(step.started_at),
        None if step.completed_at is None else dialect.encode_datetime(step.completed_at),
        step.wait_task_id,
    )


def commit_row(
    dialect: StoreDialect, run_task_id: str, step: WorkflowStepState, context: JsonValue
) -> Row:
    """Give the row of a step with the context of its run, at this moment.

    Raises:
        InvalidStateError: a field of the step breaks the rules, or the context is not JSON.
    """
    return (
        *step_row(dialect, run_task_id, step),
        *context_row(dialect, run_task_id, context)[1:],
    )


def fenced_row(
    dialect: StoreDialect, make_row: Callable[..., Row], claim: RunClaim, *given: Any
) -> Row:
    """Give a row that needs a claim."""
    return (*make_row(dialect, *given), claim.run_task_id, claim.token)


def renewal_row(dialect: StoreDialect, claim: RunClaim) -> Row:
    """Give the row of a renewal."""
    return claim.run_task_id, claim.token, claim.lease_s


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
            created_at=dialect.decode_datetime(row[-2]),
            updated_at=dialect.decode_datetime(row[-1]),
        )
    except (TypeError, ValueError) as error:
        raise _damaged(f"run {row[0]!r}") from error


def step_from_row(run_task_id: str, row: Row, dialect: StoreDialect) -> WorkflowStepState:
    """Give the step of a row, which is without the id of the run.

    Raises:
        WorkflowStoreError: the row was not written by a store.
    """
    try:
        step_id, status, result, error, wait_task_id = row[:5]
        started_at, completed_at = row[-2:]
        return trusted_step(
            {
                "step_id": validated_identifier(step_id, name="step_id"),
                "status": _STATUS[status],
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
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged(f"step {row[0]!r} of run {run_task_id!r}") from fault


_STATUS = {status.value: status for status in TaskStatus}


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


async def steps_from_rows(
    run_task_id: str, rows: Sequence[Row], dialect: StoreDialect
) -> list[WorkflowStepState]:
    """Do the same for many rows, letting the event loop go on in between."""
    steps: list[WorkflowStepState] = []
    with _collection_paused():
        while True:
            turn_ends = time.perf_counter() + _TURN_S
            for row in rows[len(steps) :]:
                steps.append(step_from_row(run_task_id, row, dialect))
                if time.perf_counter() > turn_ends:
                    break
            if len(steps) == len(rows):
                return steps
            await asyncio.sleep(0)


_TURN_S = 0.001
"""How long decoding may keep the event loop, but for one value that takes longer."""


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running again and again over objects that all live.

    A thousand steps are enough new objects to start it dozens of times, which takes a
    quarter of the whole read; and a full collection of a large program in the midst of it
    costs tens of milliseconds. Other tasks go on meanwhile. Of reads that overlap only the
    first one pauses it, so that it always gets its turn.
    """
    if not gc.isenabled():  # somebody else's choice, or another read's
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
