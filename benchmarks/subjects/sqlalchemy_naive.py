"""SQLAlchemy as in its tutorial: a transaction with one upsert per write."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import MetaData, Table, event, insert, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..servers import Servers
from ..subject import Subject
from ..values import Json

__all__ = ["SqlalchemyPostgresql", "SqlalchemySqlite", "sqlite_engine"]


def sqlite_engine(file: object) -> AsyncEngine:
    """Create an engine with the durability of the store, and its pragmas."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", connect_args={"timeout": 60})

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


class SqlalchemySqlite(Subject):
    name = "SQLAlchemy, SQLite"
    database = "SQLite"
    _upsert: Any = staticmethod(sqlite.insert)

    async def _engine(self, servers: Servers) -> AsyncEngine:
        return sqlite_engine(await servers.sqlite_file("sqlalchemy", our_tables=True))

    async def setup(self, servers: Servers) -> None:
        self._db = await self._engine(servers)
        metadata = MetaData()
        async with self._db.connect() as connection:
            await connection.run_sync(metadata.reflect)
        self._runs: Table = metadata.tables["runs"]
        self._steps: Table = metadata.tables["steps"]

    async def start(self, run: str) -> None:
        now = datetime.now(UTC)
        row = {"run_task_id": run, "agent_id": "agent", "thread_id": "thread", "user_id": "user",
               "definition": _json(self._runs, "definition", {}),
               "input": _json(self._runs, "input", {}),
               "context": _json(self._runs, "context", {}),
               "created_at": now, "updated_at": now}  # fmt: skip
        async with self._db.begin() as connection:
            await connection.execute(insert(self._runs).values(row))

    async def write(self, run: str, step: str, value: Json) -> None:
        now = datetime.now(UTC)
        row = {"run_task_id": run, "step_id": step, "status": "completed",
               "result": _json(self._steps, "result", value), "error": None,
               "started_at": now, "completed_at": now, "wait_task_id": None}  # fmt: skip
        upsert = self._upsert(self._steps).values(row)
        replaced = {name: upsert.excluded[name] for name in list(row)[2:]}
        async with self._db.begin() as connection:
            await connection.execute(
                upsert.on_conflict_do_update(index_elements=list(row)[:2], set_=replaced)
            )

    async def close(self) -> None:
        await self._db.dispose()


class SqlalchemyPostgresql(SqlalchemySqlite):
    name = "SQLAlchemy, PostgreSQL"
    database = "PostgreSQL"
    _upsert = staticmethod(postgresql.insert)

    async def _engine(self, servers: Servers) -> AsyncEngine:
        url = make_url(await servers.postgres_database("sqlalchemy", our_tables=True))
        return create_async_engine(url.set(drivername="postgresql+asyncpg"))


def _json(table: Table, column: str, value: Json) -> Any:
    """Encode for a text column; SQLAlchemy's JSON types encode themselves."""
    return value if isinstance(table.c[column].type, postgresql.JSON) else json.dumps(value)
