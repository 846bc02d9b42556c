"""The driver's connection, as a store's own engine uses it. Imported where one is made."""

from __future__ import annotations

import asyncio

import asyncpg

from .timeouts import GRACE_S

__all__ = ["Connection"]


class Connection(asyncpg.Connection):  # type: ignore[misc] # the driver has no types
    """A connection that ends where nobody could use it, and can be closed where the server is gone.

    SQLAlchemy asks some things of a new one before it lends it, without a limit. Behind a pooler,
    which takes connections for a server that is gone, there is no answer.
    """

    _unused: asyncio.TimerHandle

    def terminate_unless_used(self, within_s: float) -> None:
        """End it after so many seconds, unless it is used until then."""
        self._unused = asyncio.get_running_loop().call_later(within_s, self.terminate)

    def used(self) -> None:
        """Tell that it came to be used."""
        self._unused.cancel()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        # The driver waits for the server to hang up. SQLAlchemy sets no limit when it lets go
        # of a pool, and the driver's own holds for a part of what asyncpg 0.30 waits for.
        try:
            async with asyncio.timeout(GRACE_S if timeout is None else timeout):
                await super().close(timeout=timeout)
        except TimeoutError:
            self.terminate()
