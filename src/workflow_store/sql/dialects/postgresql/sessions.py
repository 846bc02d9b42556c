"""Server sessions: which one runs a transaction, and how to make sure that it ended.

A server executes what it has received, even if the client is gone: closing a connection does
not stop a session that waits for a lock or that the operating system has paused. Only the
server knows when a session has ended.
"""

from __future__ import annotations

import asyncio
import random
import select
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .timeouts import bounded_transaction

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["KEY", "Known", "Session", "end_session", "open_session"]

KEY = "workflow_store_session"
"""The session's place in the pool's `info` of a connection, which a reconnect clears."""


class Session(NamedTuple):
    """A session of a server; behind a pooler, one transaction of it.

    Attributes:
        pid: the process of the session.
        started_at: distinguishes it from later sessions, of this or another server, with that
            `pid`.
        lock: behind a pooler, which passes a transaction to any session: an advisory lock that
            the transaction takes when it begins and holds until it has ended.
    """

    pid: int
    started_at: datetime
    lock: int | None = None

    @property
    def begin(self) -> str:
        """The text that begins a transaction."""
        return "BEGIN" if self.lock is None else f"BEGIN; SELECT pg_advisory_xact_lock({self.lock})"


class Known(NamedTuple):
    """What is known of a pooled connection.

    Attributes:
        session: its session.
        pooled: whether there is a pooler.
        poll: polls its socket.
    """

    session: Session
    pooled: bool
    poll: select.poll | None

    def next_session(self) -> Session:
        """Return the session of the next transaction."""
        return self.session._replace(lock=random.getrandbits(63)) if self.pooled else self.session


async def open_session(
    connection: PoolProxiedConnection, limit_s: float, *, pooled: bool
) -> Session | None:
    """Return the session of a connection; None if the server closed it while it was idle.

    Raises:
        ConnectionError: the server closed a new connection.
    """
    driver: Any = connection.driver_connection
    known: Known | None = connection.info.get(KEY)
    if known is not None:
        for _ in range(3):  # the event loop reads what has arrived, then closes the connection
            await asyncio.sleep(0)
        if driver.is_closed():
            return None
    elif driver.is_closed():
        raise ConnectionError
    else:
        async with bounded_transaction(driver, limit_s, begin="BEGIN" if pooled else None):
            row = await driver.fetchrow(_IDENTITY, timeout=limit_s)
        # A pooler invents the process that a client sees.
        pooled = pooled or row[0] != driver.get_server_pid()
        connection.info[KEY] = known = Known(Session(*row), pooled, _poll_of(driver))
    return known.next_session()


async def end_session(driver: asyncpg.Connection, session: Session, limit_s: float) -> bool:
    """Terminate a session, and return whether it no longer exists.

    A stopped process ends when it continues. After a failover the new primary has no such
    session, and what the old one still does is not in its history.
    """
    found: tuple[Any, ...]
    if session.lock is None:
        found = (_BY_PROCESS, session.pid, session.started_at)
    else:
        found = (_BY_LOCK, session.lock >> 32, session.lock & 0xFFFFFFFF)
    async with bounded_transaction(driver, limit_s, begin="BEGIN"):
        if await driver.fetchval(_IS_STANDBY, timeout=limit_s):
            return False
        pids = [row[0] for row in await driver.fetch(*found, timeout=limit_s)]
        for pid in pids:
            await driver.execute("SELECT pg_terminate_backend($1)", pid, timeout=limit_s)
    return not pids


def _poll_of(driver: asyncpg.Connection) -> select.poll | None:
    transport = getattr(driver, "_transport", None)
    socket = transport and transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return None
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return poll


# https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
_IDENTITY = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_BY_PROCESS = "SELECT pid FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"

# https://www.postgresql.org/docs/current/view-pg-locks.html: the halves of a 64-bit key
_BY_LOCK = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
    AND classid::bigint = $1 AND objid::bigint = $2
"""
_IS_STANDBY = "SELECT pg_is_in_recovery()"
