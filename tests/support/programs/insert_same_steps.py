"""Insert the same steps as others do: `insert_same_steps.py URL SEED STEPS`.

It waits for a line on its input, so that all begin together, and then inserts the steps of
the run `shared` in an order of its own.
"""

import asyncio
import random
import sys

from workflow_store import WorkflowStepState, open_store


async def main(url: str, seed: str, steps: int) -> None:
    step_ids = [f"step-{number}" for number in range(steps)]
    random.Random(seed).shuffle(step_ids)
    async with open_store(url) as store:
        print("ready", flush=True)
        sys.stdin.readline()

        async def insert(step_id: str) -> None:
            await store.upsert_step("shared", WorkflowStepState(step_id=step_id, result=seed))

        await asyncio.gather(*map(insert, step_ids))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
