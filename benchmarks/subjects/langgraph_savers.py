"""LangGraph's checkpoint savers, opened as in its documentation."""

from __future__ import annotations

import contextlib
from typing import Any

from ..servers import Servers
from ..subject import CRASH, POWER_LOSS, Subject
from ..values import Json

__all__ = ["LanggraphPostgresql", "LanggraphSqlite"]


class LanggraphSqlite(Subject):
    name = "LangGraph, SQLite"
    database = "SQLite"

    async def _open(self, servers: Servers) -> Any:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        file = await servers.sqlite_file("langgraph", our_tables=False)
        saver: Any = await self._stack.enter_async_context(
            AsyncSqliteSaver.from_conn_string(str(file))
        )
        await saver.setup()
        async with saver.conn.execute("PRAGMA synchronous") as cursor:
            (level,) = await cursor.fetchone()
        self.survives = POWER_LOSS if level >= 2 else CRASH
        return saver

    async def setup(self, servers: Servers) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._saver = await self._open(servers)
        self._configs: dict[str, Any] = {}

    async def start(self, run: str) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        config = {"configurable": {"thread_id": run, "checkpoint_ns": ""}}
        self._configs[run] = await self._saver.aput(config, empty_checkpoint(), {}, {})

    async def write(self, run: str, step: str, value: Json) -> None:
        await self._saver.aput_writes(self._configs[run], [("result", value)], step)

    def step_id(self, number: int, size: int) -> str:
        # The saver ignores a repeated write, which would then cost nothing.
        return f"step-{number:012d}"

    async def read(self, run: str) -> int:
        checkpoint = await self._saver.aget_tuple({"configurable": {"thread_id": run}})
        return len(checkpoint.pending_writes)

    async def close(self) -> None:
        await self._stack.aclose()


class LanggraphPostgresql(LanggraphSqlite):
    name = "LangGraph, PostgreSQL"
    database = "PostgreSQL"

    async def _open(self, servers: Servers) -> Any:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        url = await servers.postgres_database("langgraph", our_tables=False)
        saver: Any = await self._stack.enter_async_context(AsyncPostgresSaver.from_conn_string(url))
        await saver.setup()
        return saver
