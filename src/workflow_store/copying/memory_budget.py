"""How much of many runs is in memory at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

__all__ = ["MemoryBudget"]

_READS_AT_ONCE = 4
_BYTES_AT_ONCE = 64 * 2**20


class MemoryBudget:
    """Lets so many runs be read, and held until they are written, that memory is bounded.

    How large a run is, is known once it is read. So few are read at once, and no more while
    those that are held are over the bound.
    """

    def __init__(self) -> None:
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._held = 0
        self._left = asyncio.Event()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """Wait until a run may be read, and let others wait meanwhile."""
        async with self._reads:
            while self._held > _BYTES_AT_ONCE:
                self._left.clear()
                await self._left.wait()
            yield

    @contextmanager
    def holding(self, size: int) -> Generator[None]:
        """Hold a run; its text has so many bytes. Whoever holds one must not read another."""
        self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._left.set()
