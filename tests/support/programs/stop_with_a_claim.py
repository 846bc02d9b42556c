"""Claim the run `run`, stop, and write when continued: `… URL`.

It prints its token before it stops, and then what becomes of each write.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable

from workflow_store import ClaimLostError, SqlWorkflowStore
from workflow_store.testing import a_run, a_step


async def main(url: str) -> None:
    async with SqlWorkflowStore(url) as store:
        claim = await store.claim_run("run", owner="stopped", lease_s=0.1)
        assert claim is not None
        view = store.fenced(claim)
        await view.commit_step("run", a_step("first", result="stopped"), "stopped")
        await store.renew_claim(claim)
        print(claim.token, flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        writes: dict[str, Awaitable[object]] = {
            "create_run": view.create_run(a_run(input="late")),
            "create_run of another": view.create_run(a_run("other")),
            "update_context": view.update_context("run", "late"),
            "upsert_step": view.upsert_step("run", a_step("first", result="late")),
            "commit_step": view.commit_step("run", a_step("late"), "late"),
            "delete_run": view.delete_run("run"),
            "renew_claim": store.renew_claim(claim),
        }
        for name, write in writes.items():
            try:
                await write
            except ClaimLostError as error:
                print(f"{name}: lost {error.token}")
            else:
                print(f"{name}: written")
        await store.release_claim(claim)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
