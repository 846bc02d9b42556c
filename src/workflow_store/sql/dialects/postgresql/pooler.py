"""Detection of a connection pooler in front of a PostgreSQL server."""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["PoolerMode", "detect_pooler"]

_ROUNDS = 5


class PoolerMode(enum.Enum):
    """For how long a pooler assigns a server connection to a client.

    https://www.pgbouncer.org/features.html
    """

    NONE = "no pooler"
    SESSION = "as long as the client is connected"
    TRANSACTION = "one transaction"


async def detect_pooler(connection: AsyncConnection) -> PoolerMode:
    """Return the mode of the pooler, if any.

    Rolls back the connection's transaction, and behind a pooler opens a second connection.
    """
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if driver.get_server_pid() == await _backend_pid(connection):
        return PoolerMode.NONE
    # A pooler reports process ids of its own. In transaction mode, two clients share a server
    # process, or one client's transactions run in several.
    pids, other_pids = set(), set()
    async with connection.engine.connect() as other:
        for _ in range(_ROUNDS):
            pids.add(await _backend_pid(connection))
            other_pids.add(await _backend_pid(other))
    is_kept = len(pids) == len(other_pids) == 1 and not pids & other_pids
    return PoolerMode.SESSION if is_kept else PoolerMode.TRANSACTION


async def _backend_pid(connection: AsyncConnection) -> Any:
    """Return the id of the server process that serves a transaction."""
    await connection.rollback()
    try:
        return await connection.scalar(text("SELECT pg_backend_pid()"))
    finally:
        await connection.rollback()
