"""Open the stores that the input names, each as soon as its line comes: `… < URLS`.

It prints a line when it is ready for the next one.
"""

import asyncio
import sys

from workflow_store import open_store


async def main() -> None:
    async with open_store("sqlite://"):
        pass  # so that what is imported late does not hold up the first one
    print("ready", flush=True)
    for line in sys.stdin:
        async with open_store(line.strip()) as store:
            await store.list_steps("none")
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
