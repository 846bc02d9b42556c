"""Writes the same steps, contexts and runs again and again, many at once: `URL up|down`."""

from __future__ import annotations

import asyncio
import sys

from workflow_store import open_store
from workflow_store.testing import a_run, a_step


async def main(url: str, order: str) -> None:
    runs = [f"run {n}" for n in range(20)]
    steps = [f"step {n}" for n in range(100)]
    if order == "down":
        runs.reverse()
        steps.reverse()
    async with open_store(url) as store:
        for run in runs:
            await store.create_run(a_run(run))
        for n in range(200):
            await asyncio.gather(
                *(store.upsert_step("run 0", a_step(step, result=n)) for step in steps),
                *(store.update_context(run, n) for run in runs),
                *(store.create_run(a_run(run)) for run in runs),
            )


asyncio.run(main(*sys.argv[1:]))
