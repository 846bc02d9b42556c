"""Does a step and writes a row of the caller's own with it: `pay.py`, or `pay.py crash`.

Uses the database of `WORKFLOW_STORE_URL`. With `crash`, the process ends between the two writes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from workflow_store import SqlWorkflowStore, TaskStatus, WorkflowStepState

RUN, STEP = "run-1", "pay"
AMOUNT = 1250
CRASHED = 70

PAYMENTS = Table(
    "payments",
    MetaData(),
    # If two processes do the step concurrently, the transaction of the second one fails.
    Column("run_task_id", Text, primary_key=True),
    Column("step_id", Text, primary_key=True),
    Column("amount", Integer, nullable=False),
)


async def pay(store: SqlWorkflowStore, *, crash: bool) -> None:
    """Do the step, unless it is completed."""
    async with store.engine.begin() as connection:
        bound = store.bind(connection)
        step = await bound.get_step(RUN, STEP)
        if step is not None and step.status is TaskStatus.COMPLETED:
            print("An attempt found the step completed.")
            return
        payment = {"run_task_id": RUN, "step_id": STEP, "amount": AMOUNT}
        await connection.execute(insert(PAYMENTS).values(payment))
        if crash:
            count = await number_of_payments(connection)
            print(f"An attempt wrote {count} payment, and its process ended.", flush=True)
            os._exit(CRASHED)
        done = WorkflowStepState(step_id=STEP, status=TaskStatus.COMPLETED, result=AMOUNT)
        await bound.upsert_step(RUN, done)
        await bound.update_context(RUN, {"paid": AMOUNT})
    print("An attempt wrote the payment and the step, and committed them.")


async def number_of_payments(connection: AsyncConnection) -> int:
    return (await connection.execute(select(func.count()).select_from(PAYMENTS))).scalar_one()


@asynccontextmanager
async def opened(url: str, schema: str | None) -> AsyncIterator[SqlWorkflowStore]:
    """Open a store on an engine of the caller, whose database also has the caller's tables."""
    engine = callers_engine(url, schema)
    try:
        async with SqlWorkflowStore(engine, schema=schema, migrate=True) as store:
            yield store
    finally:
        await engine.dispose()


def callers_engine(url: str, schema: str | None) -> AsyncEngine:
    parsed = make_url(url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[parsed.drivername]
    engine = create_async_engine(parsed.set(drivername=driver))
    return engine.execution_options(schema_translate_map={None: schema})


async def attempt(*, crash: bool) -> None:
    url, schema = os.environ["WORKFLOW_STORE_URL"], os.environ["WORKFLOW_STORE_SCHEMA"]
    async with opened(url, schema or None) as store:
        await pay(store, crash=crash)


if __name__ == "__main__":
    asyncio.run(attempt(crash=sys.argv[1:] == ["crash"]))
