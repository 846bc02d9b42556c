"""Purge runs: `… URL own|callers BEFORE BATCH`.

With an engine of a caller's that knows nothing of the package, SQLite enforces no foreign
keys. Before each statement that deletes, it prints a line and waits for one, so that a kill
meets a transaction that is open. Without an input it does not wait.
"""

import asyncio
import sys
from datetime import datetime
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from workflow_store import SqlWorkflowStore


async def main(url: str, engine: str, before: str, batch: str) -> None:
    callers = None
    if engine == "callers":
        driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
        callers = create_async_engine(make_url(url).set(drivername=driver))
    async with SqlWorkflowStore(callers or url) as store:

        @event.listens_for(store.engine.sync_engine, "before_cursor_execute")
        def wait(_: Any, __: Any, sql: str, *___: Any) -> None:
            if sql.startswith("DELETE"):
                print("deleting", flush=True)
                sys.stdin.readline()

        created_before = datetime.fromisoformat(before)
        print(await store.purge_runs(created_before=created_before, batch_size=int(batch)))
    if callers is not None:
        await callers.dispose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
