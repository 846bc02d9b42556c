"""The asyncpg connection of a store's own engine; imported when one is created."""

from __future__ import annotations

import asyncio

import asyncpg

from .timeouts import GRACE_S

__all__ = ["Connection"]


class Connection(asyncpg.Connection):  # type: ignore[misc] # the driver has no types
    """A connection that is terminated if it is never checked out, and whose close has a timeout.

    SQLAlchemy runs queries on a new connection without a timeout. A pooler that accepts
    connections for a dead server never answers them.
    """

    _unused: asyncio.TimerHandle

    def terminate_unless_used(self, within_s: float) -> None:
        """Terminate the connection after this many seconds, unless it is used first."""
        self._unused = asyncio.get_running_loop().call_later(within_s, self.terminate)

    def mark_used(self) -> None:
        """Keep the connection: it was checked out."""
        self._unused.cancel()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        # asyncpg waits until the server closes the connection. SQLAlchemy sets no timeout when
        # it disposes a pool, and asyncpg 0.30 does not apply its own to the whole wait.
        try:
            async with asyncio.timeout(GRACE_S if timeout is None else timeout):
                await super().close(timeout=timeout)
        except TimeoutError:
            self.terminate()
