"""The A2A SDK's task store: every write saves a task with one artifact."""

from __future__ import annotations

from typing import Any

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..servers import Servers
from ..subject import Subject
from ..values import Json
from .sqlalchemy_naive import sqlite_engine

__all__ = ["A2aPostgresql", "A2aSqlite"]


class A2aSqlite(Subject):
    name = "A2A SDK, SQLite"
    database = "SQLite"

    async def _engine(self, servers: Servers) -> AsyncEngine:
        return sqlite_engine(await servers.sqlite_file("a2a", our_tables=False))

    async def setup(self, servers: Servers) -> None:
        from a2a.server.context import ServerCallContext
        from a2a.server.tasks.database_task_store import DatabaseTaskStore

        self._context: Any = ServerCallContext()
        self._db = await self._engine(servers)
        self._tasks: Any = DatabaseTaskStore(self._db)
        await self._tasks.initialize()

    async def start(self, run: str) -> None:
        pass

    async def write(self, run: str, step: str, value: Json) -> None:
        from a2a.types import Artifact, Part, Task
        from google.protobuf.json_format import ParseDict
        from google.protobuf.struct_pb2 import Value

        part = Part(data=ParseDict(value, Value()))
        artifact = Artifact(artifact_id=step, parts=[part])
        task = Task(id=f"{run}-{step}", context_id=run, artifacts=[artifact])
        await self._tasks.save(task, self._context)

    async def close(self) -> None:
        await self._db.dispose()


class A2aPostgresql(A2aSqlite):
    name = "A2A SDK, PostgreSQL"
    database = "PostgreSQL"

    async def _engine(self, servers: Servers) -> AsyncEngine:
        url = make_url(await servers.postgres_database("a2a", our_tables=False))
        return create_async_engine(url.set(drivername="postgresql+asyncpg"))
