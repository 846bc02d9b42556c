"""Write for ever in 12 tasks and acknowledge each write: `write_until_killed.py URL ROUND`.

An acknowledgement is one line, `<what> <key> <number>`. It is written after the store's
call has returned, straight to the file descriptor, so that no buffer dies with the process.
"""

import asyncio
import os
import sys

from workflow_store import TaskStatus, WorkflowExecutionState, WorkflowStepState, open_store


def content(number: int) -> dict[str, object]:
    """Return the value for a number; every tenth one fills several database pages."""
    return {"number": number, "text": str(number) * (3000 if number % 10 == 0 else 3)}


def run(run_task_id: str, number: int) -> WorkflowExecutionState:
    return WorkflowExecutionState(
        run_task_id=run_task_id,
        agent_id=f"agent-{number}",
        thread_id=f"thread-{number}",
        user_id="user",
        definition={"number": number},
        input=content(number),
        context=content(number),
    )


def acknowledge(what: str, key: str, number: int) -> None:
    os.write(1, f"{what} {key} {number}\n".encode())


async def main(url: str, round_: str) -> None:
    acknowledge("start", round_, 0)
    async with open_store(url) as store:

        async def write(task: int) -> None:
            name = f"{round_}-{task}"
            await store.create_run(run(name, 0))
            acknowledge("run", name, 0)
            number = 0
            while True:
                number += 1
                step = WorkflowStepState(
                    step_id=f"{name}-{number}",
                    status=TaskStatus.COMPLETED,
                    result=content(number),
                    error=f"error {number}",
                    wait_task_id=f"wait-{number}",
                )
                await store.upsert_step(name, step)
                acknowledge("step", f"{name}/{name}-{number}", number)
                await store.upsert_step(name, step.model_copy(update={"step_id": "again"}))
                acknowledge("step", f"{name}/again", number)
                await store.update_context(name, content(number))
                acknowledge("context", name, number)
                await store.create_run(run(f"{name}-deleted", number))
                await store.upsert_step(f"{name}-deleted", step)
                await store.delete_run(f"{name}-deleted")
                acknowledge("delete", f"{name}-deleted", number)

        await asyncio.gather(*(write(task) for task in range(12)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
