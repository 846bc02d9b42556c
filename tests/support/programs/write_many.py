"""Write steps and contexts: `write_many.py URL WORKER STEPS CONTEXTS`.

Half of the steps go to the run `shared`, half to the run that the worker has for itself.
"""

import asyncio
import sys

from workflow_store import WorkflowStepState, open_store


async def main(url: str, worker: str, steps: int, contexts: int) -> None:
    async with open_store(url) as store:

        async def write_steps(first: int) -> None:
            for number in range(first, steps, 4):
                run_task_id = "shared" if number % 2 else f"own-{worker}"
                step = WorkflowStepState(
                    step_id=f"{worker}-{number}", result={"worker": worker, "number": number}
                )
                await store.upsert_step(run_task_id, step)

        async def write_contexts() -> None:
            for number in range(contexts):
                run_task_id = "shared" if number % 2 else f"own-{worker}"
                await store.update_context(run_task_id, {"worker": worker, "number": number})

        await asyncio.gather(*(write_steps(first) for first in range(4)), write_contexts())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
