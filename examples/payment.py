"""Commits a step and a row of the caller's own together, or neither.

The first attempt ends its process after writing the row and before writing the step. The second
attempt does the step. The third one finds it completed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

import own_database
from own_database import Place
from pay import AMOUNT, CRASHED, PAYMENTS, RUN, STEP, number_of_payments, opened
from workflow_store import (
    JsonValue,
    SqlWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
)


class Contents(NamedTuple):
    """The contents of the database."""

    payments: int
    step: TaskStatus
    context: JsonValue


NEITHER = Contents(0, TaskStatus.PENDING, {})
BOTH = Contents(1, TaskStatus.COMPLETED, {"paid": AMOUNT})


async def show(place: Place) -> bool:
    """Attempt the step three times, and return whether all checks hold."""
    async with opened(place.url, place.schema) as store:
        async with store.engine.begin() as connection:
            await connection.run_sync(PAYMENTS.create)
        await create(store)
        exits, contents = [], [await read(store)]
        for mode in ("crash", "", ""):
            exits.append(await attempt(place, mode))
            contents.append(await read(store))

    print(f"\n{'':<18}payments  step")
    names = ("before", "attempt 1", "attempt 2", "attempt 3")
    for name, (payments, step, _) in zip(names, contents, strict=True):
        print(f"{name:<18}{payments:<10}{step}")
    print()
    return print_checks(
        {
            "the first attempt crashed, the others did not": exits == [CRASHED, 0, 0],
            "the crash left neither payment nor step": contents[:2] == [NEITHER, NEITHER],
            "the retry committed both, once": contents[2] == BOTH,
            "a further attempt added nothing": contents[3] == BOTH,
        }
    )


async def create(store: SqlWorkflowStore) -> None:
    run = WorkflowExecutionState(
        run_task_id=RUN,
        agent_id="demo",
        thread_id="demo",
        user_id="demo",
        definition={"steps": [STEP]},
    )
    await store.create_run(run)
    await store.upsert_step(RUN, WorkflowStepState(step_id=STEP))


async def attempt(place: Place, mode: str) -> int:
    """Attempt the step in another process, and return its exit code."""
    program = Path(__file__).with_name("pay.py")
    sys.stdout.flush()  # before the output of the process
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, mode, env=place.environment()
    )
    return await process.wait()


async def read(store: SqlWorkflowStore) -> Contents:
    run, step = await store.get_run(RUN), await store.get_step(RUN, STEP)
    assert run is not None
    assert step is not None
    async with store.engine.connect() as connection:
        return Contents(await number_of_payments(connection), step.status, run.context)


def print_checks(checks: dict[str, bool]) -> bool:
    for check, holds in checks.items():
        print(f"{'ok' if holds else 'FAILED':<8}{check}")
    return all(checks.values())


if __name__ == "__main__":
    sys.exit(own_database.run(show, name="payment", about="Commit a step with a row of one's own."))
