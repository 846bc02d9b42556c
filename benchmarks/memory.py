"""Peak memory while very many writes wait, each figure from a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from .servers import Servers
from .values import Json

__all__ = ["measure_memory"]


async def measure_memory(servers: Servers, callers: int) -> list[Json]:
    """Give the peaks of callers that only wait, and of callers that write."""
    found: list[Json] = []
    for database in ("SQLite", "PostgreSQL"):
        for mode in ("callers alone", "callers writing"):
            name = f"memory_{mode.rpartition(' ')[2]}"
            if database == "SQLite":
                url = f"sqlite:///{await servers.sqlite_file(name, our_tables=True)}"
            else:
                url = await servers.postgres_database(name, our_tables=True)
            found.append({"database": database, "mode": mode, **await _probe(url, mode, callers)})
    return found


async def _probe(url: str, mode: str, callers: int) -> Json:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.memory_probe", url, mode, str(callers),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the probe of {mode} failed")
    answer: Json = json.loads(output)
    return answer
