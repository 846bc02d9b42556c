"""asyncpg without a library: one connection, or a pool of ten."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import asyncpg

from ..servers import Servers
from ..subject import Subject
from ..values import Json
from . import raw

__all__ = ["RawAsyncpg", "RawAsyncpgPool"]


class RawAsyncpg(Subject):
    name = "raw asyncpg, one connection"
    database = "PostgreSQL"
    task_counts: tuple[int, ...] = (1,)

    _connection: Any

    async def setup(self, servers: Servers) -> None:
        url = await servers.postgres_database("raw_one", our_tables=True)
        self._connection = await asyncpg.connect(url)

    async def start(self, run: str) -> None:
        await self._connection.execute(raw.POSTGRESQL_RUN, run, datetime.now(UTC))

    async def write(self, run: str, step: str, value: Json) -> None:
        now = datetime.now(UTC)
        row = (run, step, "completed", json.dumps(value), None, now, now, None)
        await self._connection.execute(raw.POSTGRESQL_UPSERT, *row)

    async def read(self, run: str) -> int:
        row_of_run = await self._connection.fetchrow(raw.POSTGRESQL_READ_RUN, run)
        for column in (6, 7, 8):
            json.loads(row_of_run[column])
        rows = await self._connection.fetch(raw.POSTGRESQL_READ_STEPS, run)
        return len([json.loads(row[2]) for row in rows])

    async def close(self) -> None:
        await self._connection.close()


class RawAsyncpgPool(RawAsyncpg):
    """The same statements on a pool, whose `execute` checks out a connection for each."""

    name = "raw asyncpg, pool of 10"
    task_counts = (16, 64)

    async def setup(self, servers: Servers) -> None:
        url = await servers.postgres_database("raw_pool", our_tables=True)
        self._connection = await asyncpg.create_pool(url, min_size=10, max_size=10)
