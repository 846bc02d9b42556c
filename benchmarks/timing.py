"""Rounds, medians and ratios: how everything here is timed and compared."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from statistics import median
from typing import TypeVar

__all__ = ["median_ms", "progress", "ratio", "turns"]

_T = TypeVar("_T")


def turns(items: Sequence[_T], rounds: int) -> Iterator[tuple[int, _T]]:
    """Yield every item once per round, with the round's number.

    Round 0 warms up caches, connections and statements; its results are to be discarded.
    Each round has an order of its own, the same in every run: in a rotation, every item would
    keep its predecessor, and pay for what that one leaves to the disk.
    """
    for round_ in range(rounds + 1):
        for item in random.Random(round_).sample(items, len(items)):  # noqa: S311 - no secret
            yield round_, item


async def median_ms(
    call: Callable[[], Awaitable[object]], *, seconds: float = 0.0, at_least: int = 3
) -> float:
    """Return the median latency of repeated calls, in milliseconds.

    Args:
        call: What is timed.
        seconds: How long to repeat it.
        at_least: How many calls to make even if they take longer than that.
    """
    gc.collect()
    latencies_s: list[float] = []
    end = time.perf_counter() + seconds
    while len(latencies_s) < at_least or time.perf_counter() < end:
        begin = time.perf_counter()
        await call()
        latencies_s.append(time.perf_counter() - begin)
    return median(latencies_s) * 1e3


def ratio(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """Return the median of the ratios within each round, or None if one was not measured."""
    if not ours or not theirs:
        return None
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def progress(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)
