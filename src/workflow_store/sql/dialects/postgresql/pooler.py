"""What lies between a client and its PostgreSQL server."""

from __future__ import annotations

import enum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["PoolerMode", "detect_pooler"]

_ROUNDS = 5


class PoolerMode(enum.Enum):
    """What lies between, by what becomes of a session."""

    NOTHING = "nothing that gives sessions numbers of its own"
    SESSION_POOLER = "a pooler that keeps a session for as long as the client's connection"
    TRANSACTION_POOLER = "a pooler that lends a session for one transaction"


async def detect_pooler(connection: AsyncConnection) -> PoolerMode:
    """Find out. A transaction of the connection's is rolled back.

    It takes one more connection where there is a pooler.
    """
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if driver.get_server_pid() == await _backend(connection):
        return PoolerMode.NOTHING
    # A pooler gives a number of its own. One in transaction mode lends the server's connection
    # to another client as soon as a transaction has ended, or takes another one for the next.
    ours, others = set(), set()
    async with connection.engine.connect() as other:
        for _ in range(_ROUNDS):
            ours.add(await _backend(connection))
            others.add(await _backend(other))
    keeps_them = len(ours) == len(others) == 1 and not ours & others
    return PoolerMode.SESSION_POOLER if keeps_them else PoolerMode.TRANSACTION_POOLER


async def _backend(connection: AsyncConnection) -> Any:
    """Tell which process of the server serves the next transaction."""
    await connection.rollback()
    try:
        return await connection.scalar(text("SELECT pg_backend_pid()"))
    finally:
        await connection.rollback()
