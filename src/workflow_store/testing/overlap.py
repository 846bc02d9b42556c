"""Assertions that run while other work goes on in a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ..store import ResumableWorkflowStore
from .samples import a_run, a_step

__all__ = ["check_during", "check_during_writes"]


async def check_during(
    work: Coroutine[Any, Any, None], check: Callable[[], Awaitable[None]]
) -> None:
    """Repeat a check until the work is done."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await check()
            await asyncio.sleep(0)
    finally:
        await task


async def check_during_writes(
    store: ResumableWorkflowStore,
    write: Callable[[int], Awaitable[None]],
    check: Callable[[], Awaitable[None]],
) -> None:
    """Repeat a check while `write` writes 1, 2, 3 … to a run whose step and context hold 0."""
    await store.create_run(a_run(context=0))
    await store.upsert_step("run", a_step(result=0))

    async def write_all() -> None:
        for number in range(1, 50):
            await write(number)

    await check_during(write_all(), check)
