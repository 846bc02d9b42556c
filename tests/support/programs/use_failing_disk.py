"""Call a store whose disk fails, and print the errors as JSON: `… URL SWITCH [crash]`.

With `crash`, only write a step, read it when the disk works again, print its result, and die.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from workflow_store import StoreUnavailableError, WorkflowStoreError, open_store
from workflow_store.testing import a_run, a_step


async def main(url: str, switch: Path) -> None:
    async with open_store(url) as store:
        for number in range(50):
            await store.create_run(a_run(f"r{number}", context="c" * 3000))
    async with open_store(url, pool_size=1) as store:  # with nothing cached
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get_run": lambda: store.get_run("r3"),
            "list_runs": store.list_runs,
            "upsert_step": lambda: store.upsert_step("r3", a_step()),
            "claim_run": lambda: store.claim_run("r5", owner="me"),
        }
        errors = {}
        switch.touch()
        for name, call in calls.items():
            try:
                await call()
            except WorkflowStoreError as error:
                errors[name] = [type(error).__name__, str(error)]
        switch.unlink()
        for call in calls.values():  # the disk works again
            await call()
    print(json.dumps(errors))


async def crash(url: str, switch: Path) -> None:
    async with open_store(url) as store:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(result="before"))
        switch.touch()
        try:
            await store.upsert_step("run", a_step(result="after"))
        except StoreUnavailableError:
            switch.unlink()
        step = await store.get_step("run", "step")
        assert step is not None
        print(json.dumps(step.result), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run((crash if "crash" in sys.argv else main)(sys.argv[1], Path(sys.argv[2])))
