"""The standard library's sqlite3: one transaction at a time, without a thread or an event loop."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from typing import Literal

from ..servers import Servers
from ..subject import CRASH, Subject
from ..values import Json
from . import raw

__all__ = ["RawSqlite3Full", "RawSqlite3Normal"]


class RawSqlite3Full(Subject):
    name = "raw sqlite3, FULL"
    database = "SQLite"
    task_counts = (1,)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"

    async def setup(self, servers: Servers) -> None:
        file = await servers.sqlite_file(f"raw_{self.synchronous}", our_tables=True)
        # Autocommit: each statement is its own transaction.
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._connection.execute(f"PRAGMA synchronous={self.synchronous}")

    async def start(self, run: str) -> None:
        self._connection.execute(raw.SQLITE_RUN, (run, _now()))

    async def write(self, run: str, step: str, value: Json) -> None:
        now = _now()
        row = (run, step, "completed", json.dumps(value), None, now, now, None)
        self._connection.execute(raw.SQLITE_UPSERT, row)

    async def read(self, run: str) -> int:
        (row_of_run,) = self._connection.execute(raw.SQLITE_READ_RUN, (run,)).fetchall()
        for column in (6, 7, 8):
            json.loads(row_of_run[column])
        rows = self._connection.execute(raw.SQLITE_READ_STEPS, (run,)).fetchall()
        return len([json.loads(row[2]) for row in rows])

    async def close(self) -> None:
        self._connection.close()


class RawSqlite3Normal(RawSqlite3Full):
    name = "raw sqlite3, NORMAL"
    survives = CRASH
    synchronous = "NORMAL"


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
