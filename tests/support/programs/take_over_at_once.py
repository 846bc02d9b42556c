"""Take over abandoned runs in eight tasks until there are none: `… URL OWNER`.

It waits for a line on its input, so that all begin together, and prints each run with the
token of its claim.
"""

import asyncio
import sys

from workflow_store import SqlWorkflowStore


async def main(url: str, owner: str) -> None:
    async with SqlWorkflowStore(url) as store:
        await store.get_run("none")
        print("ready", flush=True)
        sys.stdin.readline()

        async def take_over(task: int) -> None:
            while claims := await store.claim_abandoned_runs(
                owner=f"{owner}-{task}", lease_s=3600, limit=3
            ):
                for claim in claims:
                    print(claim.run_task_id, claim.token)

        await asyncio.gather(*map(take_over, range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
