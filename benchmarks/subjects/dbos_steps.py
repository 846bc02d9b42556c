"""DBOS: workflows of trivial steps, in a separate process.

DBOS is a singleton with polling threads, which would slow the other subjects down.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from ..servers import Servers
from ..subject import Cell, Sample, Subject
from ..values import Json, Values

__all__ = ["DbosPostgresql", "DbosSqlite"]


class DbosSqlite(Subject):
    name = "DBOS, SQLite"
    database = "SQLite"
    task_counts: tuple[int, ...] = (1, 16)  # a turn with 64 takes seconds

    async def _url(self, servers: Servers) -> str:
        return f"sqlite:///{await servers.sqlite_file('dbos', our_tables=False)}"

    async def setup(self, servers: Servers) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self._process: Any = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.subjects.dbos_worker", await self._url(servers),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, cwd=servers.folder, env=environment,
        )  # fmt: skip
        self.survives = (await self._answer())["survives"]

    async def start(self, run: str) -> None:
        pass

    async def write(self, run: str, step: str, value: Json) -> None:
        raise NotImplementedError

    async def turn(self, cell: Cell, seconds: float, values: Values) -> Sample:
        self._process.stdin.write(f"{cell.tasks} {seconds} {cell.size}\n".encode())
        answer = await self._answer()
        return Sample(answer["count"], answer["elapsed_s"], answer["latencies_s"])

    async def _answer(self) -> Json:
        # DBOS may log to stdout too; an answer begins with a brace.
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):
                answer: Json = json.loads(line)
                return answer
        errors = (await self._process.stderr.read()).decode()
        raise RuntimeError(f"DBOS failed: {errors[-300:]}")

    async def close(self) -> None:
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 15)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class DbosPostgresql(DbosSqlite):
    name = "DBOS, PostgreSQL"
    database = "PostgreSQL"
    task_counts = (1, 16, 64)

    async def _url(self, servers: Servers) -> str:
        return await servers.postgres_database("dbos", our_tables=False)
