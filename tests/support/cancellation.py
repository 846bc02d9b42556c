"""Calls that are cancelled at any point."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

from support.databases import checked_out
from support.waiting import PATIENCE_S, until
from workflow_store import ClaimLostError, WorkflowStore


async def settled(store: WorkflowStore | None = None) -> None:
    """Wait until cancelled calls have ended in the background."""

    def nothing_under_way() -> bool:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return not others and (store is None or checked_out(store) == 0)

    await until(nothing_under_way)


async def cancelled(call: Awaitable[Any], after: float | int, *, lost: bool = False) -> bool:
    """Cancel a call, and return whether it had ended before.

    Args:
        call: the call.
        after: rounds of the event loop (int) or seconds (float) before it is cancelled.
        lost: whether a call that ended must have failed with `ClaimLostError`.
    """
    task = asyncio.ensure_future(call)
    if isinstance(after, int):
        for _ in range(after):  # none: before its first line has run
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(after)
    task.cancel()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await task
    except asyncio.CancelledError:
        return False
    except ClaimLostError:
        assert lost
    else:
        assert not lost
    return True


def some_delay() -> float | int:
    return random.choice([0, 1, 2, 3, random.randint(4, 40), random.uniform(0, 0.005)])
