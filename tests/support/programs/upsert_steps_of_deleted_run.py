"""Upsert steps of the run `deleted` until the input ends: `… URL WORKER`.

A missing run is expected; any other error ends the program. It prints how many writes
found the run and how many did not.
"""

import asyncio
import sys

from workflow_store import RunNotFoundError, WorkflowStepState, open_store


async def main(url: str, worker: str) -> None:
    found = missed = 0
    async with open_store(url) as store:
        print("ready", flush=True)
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))

        async def upsert(task: int) -> None:
            nonlocal found, missed
            number = 0
            while not ended.done():
                number += 1
                try:
                    await store.upsert_step(
                        "deleted", WorkflowStepState(step_id=f"{worker}-{task}-{number % 5}")
                    )
                    found += 1
                except RunNotFoundError:
                    missed += 1

        await asyncio.gather(*(upsert(task) for task in range(4)))
    print(found, missed, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
