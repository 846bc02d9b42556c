"""Waits for events, within a bound that only a hang exceeds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

PATIENCE_S = 300.0
"""A bound against a hang, never a measure of speed."""


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Poll a condition until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            result = holds()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.002)


async def threads_ended(expected: set[threading.Thread]) -> None:
    """Wait until there are no threads but these; each connection to SQLite has one.

    Those that the event loop keeps for `asyncio.to_thread` end with it.
    """

    def no_others() -> bool:
        others = set(threading.enumerate()) - expected
        return all(thread.name.startswith("asyncio_") for thread in others)

    await until(no_others)
