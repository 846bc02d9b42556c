"""The lock that lets one migration run at a time, and limits on how long it blocks others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, event, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ....errors import StoreUnavailableError
from ..base import MigrationRunner
from .errors import classify_error
from .liveness import session_of, terminated_if_lost
from .pooler import PoolerMode, detect_pooler
from .sessions import Session
from .timeouts import time_limit, watchdog

__all__ = ["migration_lock"]

TABLE_LOCK_S = 3.0
"""How long a revision waits for a lock on a table; other sessions queue behind it meanwhile."""

PAUSE_S = 2.0
"""How long it then lets them proceed, before it is tried again."""

SILENCE_S = 30.0
"""How long it waits for the server's answer to a statement that waits for nothing."""


@contextlib.asynccontextmanager
async def migration_lock(
    connection: AsyncConnection, schema: str | None, timeout_s: float
) -> AsyncIterator[MigrationRunner]:
    """Implement `StoreDialect.migration_lock`."""
    # A caller's engine may be in autocommit mode.
    await connection.execution_options(isolation_level="READ COMMITTED")
    with time_limit(SILENCE_S, connection.engine):
        if await detect_pooler(connection) is PoolerMode.TRANSACTION:
            raise StoreUnavailableError(
                "The connection goes through a pooler in transaction mode, which cannot hold the "
                "migration lock. Nothing was changed: run the migration over a direct connection "
                "to the server."
            )
        session = await session_of(connection)
        await connection.rollback()
    async with _advisory_lock(connection, schema, timeout_s), _lock_timeouts(connection, timeout_s):
        yield partial(_run, connection, session, timeout_s)


@contextlib.asynccontextmanager
async def _advisory_lock(
    connection: AsyncConnection, schema: str | None, timeout_s: float
) -> AsyncIterator[None]:
    """Hold a session-level advisory lock.

    It is polled, since a session that waits inside the server holds a snapshot, and CREATE INDEX
    CONCURRENTLY in the session with the lock would wait for that:
    https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    """
    key = {"key": f"workflow_store.{schema or ''}"}
    acquire = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    release = text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))")
    driver: Any = (await connection.get_raw_connection()).driver_connection
    deadline = time.monotonic() + timeout_s
    with watchdog(driver, SILENCE_S) as reset:
        while not await connection.scalar(acquire, key):
            await connection.rollback()
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"Another migration of these tables has been running for over {timeout_s:g} "
                    "seconds. Nothing was changed: try again when it has finished."
                )
            await asyncio.sleep(0.1)
            reset()
    try:
        yield
    finally:
        if not driver.is_closed():  # else the lock ended with the session
            with watchdog(driver, SILENCE_S):
                await connection.rollback()
                await connection.execute(release, key)
                await connection.commit()


@contextlib.asynccontextmanager
async def _lock_timeouts(connection: AsyncConnection, timeout_s: float) -> AsyncIterator[None]:
    """Limit how long statements wait for locks, inside transactions to `TABLE_LOCK_S`.

    Other sessions queue behind a statement that waits for a lock on a table. Outside of a
    transaction a revision builds an index concurrently, which blocks no writer.
    """
    set_timeout = text("SELECT set_config('lock_timeout', :value, false)")
    driver: Any = (await connection.get_raw_connection()).driver_connection
    with watchdog(driver, SILENCE_S):
        before = await connection.scalar(text("SHOW lock_timeout"))
        await connection.execute(set_timeout, {"value": _milliseconds(timeout_s)})
        await connection.commit()

    def begin(sync_connection: Connection) -> None:
        if sync_connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            wait = _milliseconds(min(timeout_s, TABLE_LOCK_S))
            sync_connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{wait}'")

    event.listen(connection.sync_connection, "begin", begin)
    try:
        yield
    finally:
        event.remove(connection.sync_connection, "begin", begin)
        if not driver.is_closed():
            with watchdog(driver, SILENCE_S):
                await connection.rollback()
                await connection.execute(set_timeout, {"value": before})
                await connection.commit()


async def _run(
    connection: AsyncConnection,
    session: Session,
    timeout_s: float,
    work: Callable[[Connection], Any],
) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        async with terminated_if_lost(connection, session):
            try:
                return await connection.run_sync(work)
            except exc.DBAPIError as error:
                locked = classify_error(error).name == "SQLSTATE 55P03"  # lock_not_available
                if not locked or time.monotonic() + PAUSE_S > deadline:
                    raise
                await connection.rollback()
        await asyncio.sleep(PAUSE_S)


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"
