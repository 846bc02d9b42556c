"""Timeouts for a server that stops responding without closing the connection.

The operating system gives up such a connection after about a quarter of an hour
(https://www.kernel.org/doc/html/latest/networking/ip-sysctl.html, tcp_retries2). Server-side
timeouts do not help, since their errors never arrive. Nor does asyncpg's timeout alone: after
it, asyncpg asks the server to cancel the statement, and the next call on the connection, such
as a rollback, waits for the answer. TCP_USER_TIMEOUT, on Linux only, would still not notice a
stopped server process, or a pooler that accepts data for a dead server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import UnknownOutcomeError
from .errors import was_rolled_back

if TYPE_CHECKING:
    import asyncpg

    from .sessions import Session

__all__ = ["GRACE_S", "bounded_transaction", "raise_if_unknown", "resync", "watchdog"]

GRACE_S = 1.0
"""For the server's own timeout error, which says more than silence, and for a rollback."""


@contextlib.asynccontextmanager
async def bounded_transaction(
    driver: asyncpg.Connection,
    limit_s: float,
    *,
    begin: str | None = None,
    session: Session | None = None,
) -> AsyncIterator[None]:
    """Run statements of the block in a transaction; then the connection is usable or closed.

    Args:
        driver: the connection, in no transaction.
        limit_s: seconds for BEGIN and for COMMIT; the statements have their own.
        begin: begins a transaction. A single statement needs none.
        session: the session, if the block writes.

    Raises:
        UnknownOutcomeError: the server may have committed what the block writes.
    """
    commits = begin is None
    try:
        if begin is not None:
            await driver.execute(begin, timeout=limit_s)
        yield
        if begin is not None:
            commits = True
            await driver.execute("COMMIT", timeout=limit_s)
    except BaseException as error:
        if (begin is not None or isinstance(error, TimeoutError)) and not driver.is_closed():
            await resync(driver, "SELECT 1" if begin is None else "ROLLBACK")
        if commits and session is not None:
            raise_if_unknown(error, driver, session)
        raise


async def resync(driver: asyncpg.Connection, sql: str) -> None:
    """Wait for the result of a statement, and of a cancellation before it, or terminate."""
    try:
        async with asyncio.timeout(GRACE_S):
            await driver.execute(sql)
    except BaseException as error:
        driver.terminate()
        if not isinstance(error, Exception):
            raise


def raise_if_unknown(error: BaseException, driver: asyncpg.Connection, session: Session) -> None:
    """Raise `UnknownOutcomeError` unless the error of a commit means that it was rolled back.

    Args:
        error: the error of a statement that commits, or of COMMIT.
        driver: the connection, closed unless it has answered since.
        session: its session.
    """
    if isinstance(error, Exception) and not was_rolled_back(error, pooled=session.lock is not None):
        raise UnknownOutcomeError(session if driver.is_closed() else None) from error


@contextlib.contextmanager
def watchdog(driver: asyncpg.Connection, limit_s: float) -> Iterator[Callable[[], None]]:
    """Terminate the connection if the server is silent for too long while the block runs.

    A pending call then fails at once; cancelling it would wait for the server once more.

    Args:
        driver: the connection.
        limit_s: seconds of silence.

    Yields:
        A function to call after each response of the server.

    Raises:
        TimeoutError: the connection was terminated.
    """
    loop = asyncio.get_running_loop()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        driver.terminate()

    timer = loop.call_later(limit_s, terminate)

    def reset() -> None:
        nonlocal timer
        timer.cancel()
        timer = loop.call_later(limit_s, terminate)

    try:
        yield reset
    except Exception:
        if terminated:
            raise TimeoutError from None  # asyncpg only reports a closed connection
        raise
    finally:
        timer.cancel()
