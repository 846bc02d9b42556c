"""An end to all waiting for a server that was cut off without a word.

No packet says that it is gone, and the operating system gives such a connection up after a
quarter of an hour. The server's own limits do not help: nobody hears of them. Nor does the
driver's limit alone, after which it asks the server to cancel the statement and lets whatever
comes next on the connection, a rollback for instance, wait for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

__all__ = ["GRACE_S", "asking", "watched"]

GRACE_S = 1.0
"""For the server's own word, which says more than that there was none, and for a rollback."""


@contextlib.asynccontextmanager
async def asking(
    driver: asyncpg.Connection, limit_s: float, *, in_transaction: bool
) -> AsyncIterator[None]:
    """Leave a connection of the driver usable or ended, whatever comes of the statements inside.

    Args:
        driver: the connection, in no transaction.
        limit_s: seconds for the beginning and for the commit, as the statements have themselves.
        in_transaction: whether there is to be one. One statement is one by itself.
    """
    try:
        if in_transaction:
            await driver.execute("BEGIN", timeout=limit_s)
        yield
        if in_transaction:
            await driver.execute("COMMIT", timeout=limit_s)
    except BaseException as error:
        if (in_transaction or isinstance(error, TimeoutError)) and not driver.is_closed():
            await _answer(driver, "ROLLBACK" if in_transaction else "SELECT 1")
        raise


async def _answer(driver: asyncpg.Connection, sql: str) -> None:
    """Wait for the answer to a statement, and to a cancellation before it, or end it all."""
    try:
        async with asyncio.timeout(GRACE_S):
            await driver.execute(sql)
    except BaseException as error:
        driver.terminate()
        if not isinstance(error, Exception):
            raise


@contextlib.contextmanager
def watched(driver: asyncpg.Connection, limit_s: float) -> Iterator[Callable[[], None]]:
    """End a connection of which nothing is heard for too long while the block runs.

    What waits for it fails at once, where a cancellation would wait for the server once more.

    Args:
        driver: the connection.
        limit_s: seconds of silence.

    Yields:
        What to call when something was heard.

    Raises:
        TimeoutError: the connection was ended.
    """
    loop = asyncio.get_running_loop()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        driver.terminate()

    waiting = loop.call_later(limit_s, end)

    def hear() -> None:
        nonlocal waiting
        waiting.cancel()
        waiting = loop.call_later(limit_s, end)

    try:
        yield hear
    except Exception:
        if ended:
            raise TimeoutError from None  # the driver says no more than that it was ended
        raise
    finally:
        waiting.cancel()
