"""Claim each of the runs in four tasks, each an owner of its own: `… URL OWNER RUN…`.

It waits for a line on its input before each run, so that all claim it together, and prints
the tokens that it got.
"""

import asyncio
import sys

from workflow_store import SqlWorkflowStore


async def main(url: str, owner: str, *names: str) -> None:
    async with SqlWorkflowStore(url) as store:
        await store.get_run("none")
        print("ready", flush=True)
        for name in names:
            sys.stdin.readline()
            found = await asyncio.gather(
                *(store.claim_run(name, owner=f"{owner}-{task}", lease_s=3600) for task in range(4))
            )
            print(*(claim.token for claim in found if claim), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
