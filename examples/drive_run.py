"""Drives one run in the store of `WORKFLOW_STORE_URL`: `drive_run.py RUN_TASK_ID JOURNAL`.

Starting a new run and resuming one of another process are the same. The journal gets a line for
each step that is started, with the id of the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from stdlib_steps import FUNCTIONS
from tiny_runtime import Runtime
from workflow_store import open_store


async def drive(run_task_id: str, journal: Path) -> None:
    def on_start(step_id: str) -> None:
        with journal.open("a") as file:
            file.write(f"{os.getpid()} {step_id}\n")

    async with open_store() as store:
        await Runtime(store, run_task_id, FUNCTIONS, on_start).drive()


if __name__ == "__main__":
    asyncio.run(drive(sys.argv[1], Path(sys.argv[2])))
