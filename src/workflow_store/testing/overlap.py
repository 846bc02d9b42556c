"""Looking at a store while something else is at work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..store import ResumableWorkflowStore
from .samples import a_run, a_step

__all__ = ["beside", "beside_writes"]


async def beside(work: Coroutine[Any, Any, None], look: Callable[[], Awaitable[None]]) -> None:
    """Look again and again while something is at work."""
    working = asyncio.ensure_future(work)
    try:
        while not working.done():
            await look()
            await asyncio.sleep(0)
    finally:
        await working


async def beside_writes(
    store: ResumableWorkflowStore,
    write: Callable[[int], Awaitable[None]],
    look: Callable[[], Awaitable[None]],
) -> None:
    """Look again and again while numbers are written to a run whose step and context hold 0."""
    await store.create_run(a_run(context=0))
    await store.upsert_step("run", a_step(result=0))

    async def write_all() -> None:
        for number in range(1, 50):
            await write(number)

    await beside(write_all(), look)
