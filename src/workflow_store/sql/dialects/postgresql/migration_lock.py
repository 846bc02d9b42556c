"""What keeps two migrations apart on PostgreSQL, and a migration from holding up everyone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from sqlalchemy import Connection, event, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ....errors import StoreUnavailableError
from ..base import MigrationRunner
from .errors import classify_error
from .pooler import PoolerMode, detect_pooler

__all__ = ["migration_lock"]

TABLE_LOCK_S = 3.0
"""How long a revision waits for a lock on a table: for so long, others wait behind it."""

PAUSE_S = 2.0
"""For them to pass, before the revision is tried again."""


@contextlib.asynccontextmanager
async def migration_lock(
    connection: AsyncConnection, schema: str | None, timeout_s: float
) -> AsyncIterator[MigrationRunner]:
    """Do what `StoreDialect.migration_lock` says."""
    # A caller's engine may commit each statement by itself.
    await connection.execution_options(isolation_level="READ COMMITTED")
    if await detect_pooler(connection) is PoolerMode.TRANSACTION:
        raise StoreUnavailableError(
            "The connection goes through a pooler in transaction mode, which does not keep "
            "the lock that a migration needs. Nothing was changed; migrate with the host "
            "and port of the server itself."
        )
    async with _advisory_lock(connection, schema, timeout_s), _lock_timeouts(connection, timeout_s):
        yield partial(_run, connection, timeout_s)


@contextlib.asynccontextmanager
async def _advisory_lock(
    connection: AsyncConnection, schema: str | None, timeout_s: float
) -> AsyncIterator[None]:
    """Hold a lock that belongs to the session.

    Asked for again and again instead of waited for inside the server: a session that waits
    holds a snapshot, for which CREATE INDEX CONCURRENTLY in the holder would wait.
    """
    key = {"key": f"workflow_store.{schema or ''}"}
    take = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    give = text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))")
    deadline = time.monotonic() + timeout_s
    while not await connection.scalar(take, key):
        await connection.rollback()
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                f"Another migration of these tables has been running for over {timeout_s:g} "
                "seconds. Nothing was changed; wait for it to end, then run this again."
            )
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await connection.rollback()
        await connection.execute(give, key)
        await connection.commit()


@contextlib.asynccontextmanager
async def _lock_timeouts(connection: AsyncConnection, timeout_s: float) -> AsyncIterator[None]:
    """Limit how long a statement waits for a lock: in a transaction, others wait behind it.

    Outside of one an index is built concurrently, behind which nobody waits.
    """
    set_timeout = text("SELECT set_config('lock_timeout', :value, false)")
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
        await connection.rollback()
        await connection.execute(set_timeout, {"value": before})
        await connection.commit()


async def _run(
    connection: AsyncConnection, timeout_s: float, work: Callable[[Connection], None]
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            await connection.run_sync(work)
        except exc.DBAPIError as error:
            locked = classify_error(error).name == "SQLSTATE 55P03"  # lock_not_available
            if not locked or time.monotonic() + PAUSE_S > deadline:
                raise
            await connection.rollback()
        else:
            return
        await asyncio.sleep(PAUSE_S)


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"
