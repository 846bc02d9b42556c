"""The lock that lets one migration run at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection

from ..base import MigrationRunner
from .errors import classify_error

__all__ = ["migration_lock"]


@contextlib.asynccontextmanager
async def migration_lock(
    connection: AsyncConnection,
    timeout_s: float,
    in_transaction: Callable[[AsyncConnection], Awaitable[bool]],
) -> AsyncIterator[MigrationRunner]:
    """Implement `StoreDialect.migration_lock`."""
    waits_ms = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
    # Short and repeated, so that a cancelled migration ends soon.
    await connection.exec_driver_sql("PRAGMA busy_timeout=50")
    deadline = time.monotonic() + timeout_s
    try:
        # A caller's engine may have begun a read transaction.
        if await in_transaction(connection):
            await connection.exec_driver_sql("ROLLBACK")
        while True:
            try:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            except exc.OperationalError as error:
                if classify_error(error).name != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                break
        # Without a write-ahead log, the commit waits for readers.
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
        yield connection.run_sync
        await connection.commit()
    finally:
        await connection.rollback()
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={waits_ms}")
