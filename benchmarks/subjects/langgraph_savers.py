"""LangGraph's checkpoint savers, opened as its documentation does."""

from __future__ import annotations

import contextlib
from typing import Any

from ..servers import Servers
from ..subject import Subject
from ..values import Json

__all__ = ["LanggraphPostgresql", "LanggraphSqlite"]


class LanggraphSqlite(Subject):
    name = "LangGraph, SQLite"
    database = "SQLite"

    async def _saver(self, servers: Servers) -> Any:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        file = await servers.sqlite_file("langgraph", our_tables=False)
        saver: Any = await self._ends.enter_async_context(
            AsyncSqliteSaver.from_conn_string(str(file))
        )
        await saver.setup()
        async with saver.conn.execute("PRAGMA synchronous") as cursor:
            (level,) = await cursor.fetchone()
        self.survives = "loss of power" if level >= 2 else "the process's end only"
        return saver

    async def setup(self, servers: Servers) -> None:
        self._ends = contextlib.AsyncExitStack()
        self._opened = await self._saver(servers)
        self._configs: dict[str, Any] = {}

    async def start(self, run: str) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        config = {"configurable": {"thread_id": run, "checkpoint_ns": ""}}
        self._configs[run] = await self._opened.aput(config, empty_checkpoint(), {}, {})

    async def write(self, run: str, step: str, value: Json) -> None:
        await self._opened.aput_writes(self._configs[run], [("result", value)], step)

    def step_id(self, number: int, size: int) -> str:
        # A write that is there already is ignored, so that it would cost nothing.
        return f"step-{number:012d}"

    async def read(self, run: str) -> int:
        found = await self._opened.aget_tuple({"configurable": {"thread_id": run}})
        return len(found.pending_writes)

    async def close(self) -> None:
        await self._ends.aclose()


class LanggraphPostgresql(LanggraphSqlite):
    name = "LangGraph, PostgreSQL"
    database = "PostgreSQL"

    async def _saver(self, servers: Servers) -> Any:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        url = await servers.postgres_database("langgraph", our_tables=False)
        saver: Any = await self._ends.enter_async_context(AsyncPostgresSaver.from_conn_string(url))
        await saver.setup()
        return saver
