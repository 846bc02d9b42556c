"""Detection of a server that stopped responding to a statement without a time limit.

The build of an index may take hours, in which the server sends nothing. Meanwhile it is asked on
further connections about the session, since TCP only notices a machine that is unreachable: not
a stopped process, nor a pooler that accepts data for a dead server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from ....errors import StoreUnavailableError
from ..errors import cause_chain
from .sessions import IDENTITY, Session
from .timeouts import closing_limit, time_limit

__all__ = ["session_of", "terminated_if_lost"]

LOOK_EVERY_S = 20.0
"""Between two looks at the session."""

LOOK_LIMIT_S = 10.0
"""How long one look may take."""

LOOKS = 3
"""How many times in a row the same is seen before the session counts as lost."""

# A standby, to which another connection may lead, does not know the session. Its start and its
# state are null if the role may not see them:
# https://www.postgresql.org/docs/current/monitoring-stats.html
_LOOK = """
    SELECT CASE
        WHEN pg_is_in_recovery() THEN NULL
        WHEN session.pid IS NULL OR session.backend_start <> $2 THEN 'gone'
        WHEN session.state LIKE 'idle%' THEN 'idle since ' || session.state_change
    END
    FROM (VALUES (0)) AS one LEFT JOIN pg_stat_activity AS session ON session.pid = $1
"""


async def session_of(connection: AsyncConnection) -> Session:
    """Return the session of a connection, behind a pooler too."""
    return Session(*(await connection.execute(text(IDENTITY))).one())


@contextlib.asynccontextmanager
async def terminated_if_lost(connection: AsyncConnection, session: Session) -> AsyncIterator[None]:
    """Terminate the connection if the server does not work on the statement of the block.

    The block waits for the server all the time. A session that works for long is left alone.

    Raises:
        StoreUnavailableError: the connection was terminated.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    lost = False

    async def watch() -> None:
        nonlocal lost
        seen: list[str | None] = []
        while not lost:
            await asyncio.sleep(LOOK_EVERY_S)
            seen = [*seen, await _look(connection.engine, session)][-LOOKS:]
            lost = seen[0] is not None and seen == seen[:1] * LOOKS
        driver.terminate()

    watching = asyncio.create_task(watch())
    try:
        yield
    except Exception as error:
        if lost:
            raise StoreUnavailableError(
                "The server stopped responding during the migration, of which the last revision "
                "may be incomplete. Check the server and the network, and run the migration "
                "again, which continues where this one ended."
            ) from error
        raise
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _look(engine: AsyncEngine, session: Session) -> str | None:
    """Return why the session seems to be lost, None if it may be at work."""
    import asyncpg

    def ask() -> str | None:
        # The engine's pool may be exhausted.
        pool = engine.sync_engine.pool.recreate()
        connection = pool.connect()
        driver: Any = connection.driver_connection
        try:
            answer: str | None = await_only(driver.fetchval(_LOOK, session.pid, session.started_at))
        finally:
            with closing_limit(driver, engine):
                connection.close()
                pool.dispose()
        return answer

    try:
        with time_limit(LOOK_LIMIT_S, engine):
            return await greenlet_spawn(ask)
    except Exception as error:
        # Any other error, such as of too many connections, is an answer of the server.
        silent = (OSError, asyncpg.PostgresConnectionError)
        return "silent" if any(isinstance(e, silent) for e in cause_chain(error)) else None
