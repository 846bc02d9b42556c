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

__all__ = ["IDENTITY", "KEY", "Known", "Session", "end_session", "open_session"]

KEY = "workflow_store_session"
"""The session's place in the pool's `info` of a connection, which a reconnect clears."""


_TURNS = 20
"""With TLS, five turns of the event loop were needed until it had closed a connection."""


class Session(NamedTuple):
    """A session of a server; behind a pooler, one transaction of it.

    Attributes:
        pid: the process of the session.
        started_at: distinguishes it from later sessions, of this or another server, with that
            `pid`. None if the role may not see it.
        lock: behind a pooler, which passes a transaction to any session: an advisory lock that
            the transaction takes when it begins and holds until it has ended.
    """

    pid: int
    started_at: datetime | None
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
        # The event loop reads what has arrived, and closes the connection some turns later.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            if driver.is_closed():
                return None
            if known.poll is not None and not known.poll.poll(0):
                break
        else:
            if known.poll is not None:
                driver.terminate()
                return None
    elif driver.is_closed():
        raise ConnectionError
    else:
        async with bounded_transaction(driver, limit_s, begin="BEGIN" if pooled else None):
            row = await driver.fetchrow(IDENTITY, timeout=limit_s)
        # A pooler invents the process that a client sees.
        pooled = pooled or row[0] != driver.get_server_pid()
        connection.info[KEY] = known = Known(Session(*row), pooled, _poll_of(driver))
    return known.next_session()


async def end_session(driver: asyncpg.Connection, session: Session | None, limit_s: float) -> bool:
    """Terminate a session; return whether it no longer exists and what it committed is durable.

    A stopped process ends when it continues. After a failover the new primary has no such
    session, and what the old one still does is not in its history.

    Args:
        driver: another connection.
        session: the session; None if it has ended.
        limit_s: seconds for each statement.
    """
    async with bounded_transaction(driver, limit_s, begin="BEGIN"):
        if await driver.fetchval(_IS_STANDBY, timeout=limit_s):
            return False
        if session is not None:
            if session.lock is None:
                ended = driver.fetch(_END_PROCESS, session.pid, session.started_at, timeout=limit_s)
            else:
                key = (session.lock >> 32, session.lock & 0xFFFFFFFF)
                ended = driver.fetch(_END_HOLDER, *key, timeout=limit_s)
            if await ended:
                return False
        await driver.execute(_WAIT_FOR_STANDBYS, timeout=limit_s)
    return True


def _poll_of(driver: asyncpg.Connection) -> select.poll | None:
    transport = getattr(driver, "_transport", None)
    socket = transport and transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return None
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return poll


# https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
IDENTITY = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# The time is null if the role, as after SET ROLE, may not see it.
_END_PROCESS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = $1 AND coalesce(backend_start = $2, true)
"""

# https://www.postgresql.org/docs/current/view-pg-locks.html: the halves of a 64-bit key
_END_HOLDER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
    AND classid::bigint = $1 AND objid::bigint = $2
"""
_IS_STANDBY = "SELECT pg_is_in_recovery()"

# A commit that waits for a synchronous standby becomes visible when its session is canceled or
# terminated, and is lost if that standby is promoted. A later commit waits for all before it:
# https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
_WAIT_FOR_STANDBYS = """
    SELECT pg_logical_emit_message(true, 'workflow_store', '')
    WHERE current_setting('synchronous_standby_names') <> ''
"""
