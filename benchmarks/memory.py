"""Peak memory while very many writes wait, measured in processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from .servers import DATABASES, Servers
from .values import Json

__all__ = ["WAITING", "WRITING", "measure_memory"]

WAITING, WRITING = "tasks that only wait", "tasks that write"


async def measure_memory(servers: Servers, callers: int) -> list[Json]:
    """Return the peaks of tasks that only wait and of tasks that write."""
    results: list[Json] = []
    for database in DATABASES:
        for mode in (WAITING, WRITING):
            url = await servers.url(database, f"memory_{mode.split()[-1]}")
            figures = await _probe(url, str(callers), str(int(mode == WRITING)))
            results.append({"database": database, "mode": mode, "callers": callers, **figures})
    return results


async def _probe(*arguments: str) -> Json:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.memory_probe", *arguments,
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the memory probe failed with status {process.returncode}")
    figures: Json = json.loads(output)
    return figures
