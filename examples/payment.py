"""A step and a row of the caller's own, of which both are committed or neither.

The first attempt at the step ends its process after it wrote the row and before it wrote the
step. The second one does the step. The third one finds it done.
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


class Found(NamedTuple):
    """What the database has."""

    payments: int
    step: TaskStatus
    context: JsonValue


NEITHER = Found(0, TaskStatus.PENDING, {})
BOTH = Found(1, TaskStatus.COMPLETED, {"paid": AMOUNT})


async def show(place: Place) -> bool:
    """Attempt the step three times, and tell whether all is well."""
    async with opened(place.url, place.schema) as store:
        async with store.engine.begin() as connection:
            await connection.run_sync(PAYMENTS.create)
        await create(store)
        exits, found = [], [await look(store)]
        for how in ("crash", "", ""):
            exits.append(await attempted(place, how))
            found.append(await look(store))

    print(f"\n{'':<18}payments  step")
    for name, each in zip(("before", "attempt 1", "attempt 2", "attempt 3"), found, strict=True):
        print(f"{name:<18}{each.payments:<10}{each.step}")
    print()
    return print_checks(
        {
            "the first attempt crashed, the others did not": exits == [CRASHED, 0, 0],
            "the crash left neither payment nor step": found[:2] == [NEITHER, NEITHER],
            "the retry left both, once": found[2] == BOTH,
            "a further attempt added nothing": found[3] == BOTH,
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


async def attempted(place: Place, how: str) -> int:
    """Attempt the step in a process of its own; give its exit code."""
    program = Path(__file__).with_name("pay.py")
    sys.stdout.flush()  # else what the process prints would come first
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, how, env=place.environment()
    )
    return await process.wait()


async def look(store: SqlWorkflowStore) -> Found:
    run, step = await store.get_run(RUN), await store.get_step(RUN, STEP)
    assert run is not None
    assert step is not None
    async with store.engine.connect() as connection:
        return Found(await number_of_payments(connection), step.status, run.context)


def print_checks(checks: dict[str, bool]) -> bool:
    for what, holds in checks.items():
        print(f"{'ok' if holds else 'FAILED':<8}{what}")
    return all(checks.values())


if __name__ == "__main__":
    sys.exit(own_database.run(show, name="payment", about="Commit a step with a row of one's own."))
