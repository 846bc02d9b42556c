"""Engines as host applications make them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def plain(url: str, **options: Any) -> AsyncEngine:
    """Return an engine with the options of a host application."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    return create_async_engine(make_url(url).set(drivername=driver), **options)


@contextlib.asynccontextmanager
async def engine_of_a_host(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Yield an engine of a host application, and dispose of it."""
    engine = plain(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def recipe(url: str, begin: str) -> AsyncEngine:
    """Return an engine with SQLAlchemy's recipe for transactions on SQLite.

    See https://docs.sqlalchemy.org/en/20/dialects/sqlite.html.
    """
    engine = plain(url)

    @event.listens_for(engine.sync_engine, "connect")
    def leave_transactions_alone(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def emit_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def lossy_dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True).replace("NaN", "null")


def lossy_loads(value: str | bytes) -> Any:
    return json.loads(value, parse_int=float)
