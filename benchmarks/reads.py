"""Reading whole runs: a resume, beside the driver's two selects and beside other stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median

from .arena import median_ms
from .contestant import Contestant
from .contestants import CONTESTANTS, OursPostgresql, OursSqliteFull
from .values import KILOBYTE, Values

__all__ = ["SIZES", "ReadResult", "measure_reads", "measure_stalls"]

SIZES = (10, 100, 1_000)


@dataclass
class ReadResult:
    """What reading one run with one contestant took: a median of each round."""

    contestant: str
    steps: int
    ms: list[float] = field(default_factory=list)


async def measure_reads(
    open_: dict[str, Contestant], failures: dict[str, str], *, rounds: int, seconds: float
) -> dict[str, ReadResult]:
    """Read runs of each size with everyone who can, in turns.

    Args:
        open_: the contestants that take part, by name.
        failures: gets the reason of each that fails.
        rounds: how many medians to take.
        seconds: how long each contestant reads in a round.
    """
    readers: dict[str, tuple[int, Callable[[], Awaitable[int]]]] = {}
    values = Values(KILOBYTE, distinct=4096)
    for name, contestant in open_.items():
        if not _can_read(contestant):
            continue
        try:
            for steps in SIZES:
                await _fill(contestant, f"read-{steps}", steps, values)
                readers[f"{name} | {steps}"] = (steps, _reader(contestant, f"read-{steps}"))
        except Exception as error:
            failures[f"reading: {name}"] = f"{type(error).__name__}: {error}"
    results = {
        key: ReadResult(key.rpartition(" | ")[0], steps) for key, (steps, _) in readers.items()
    }
    keys = list(readers)
    for round_ in range(rounds + 1):
        shift = round_ * len(keys) // (rounds + 1)
        for key in keys[shift:] + keys[:shift]:
            _, read = readers[key]
            ms = await median_ms(read, seconds)
            if round_ > 0:  # the first one warms up
                results[key].ms.append(ms)
    return results


def _can_read(contestant: Contestant) -> bool:
    # The pool reads as the single connection does.
    return (
        type(contestant).read is not Contestant.read
        and contestant.name != "raw asyncpg, pool of 10"
        and isinstance(contestant, CONTESTANTS)
    )


async def _fill(contestant: Contestant, run: str, steps: int, values: Values) -> None:
    await contestant.start(run)
    for step in range(steps):
        await contestant.write(run, f"step-{step:012d}", values.next())
    if (found := await contestant.read(run)) != steps:
        raise RuntimeError(f"{found} of {steps} steps came back")


def _reader(contestant: Contestant, run: str) -> Callable[[], Awaitable[int]]:
    return lambda: contestant.read(run)


async def measure_stalls(open_: dict[str, Contestant], *, repeats: int) -> dict[str, float]:
    """Read 1,000 steps and watch the event loop: the longest time that it stood still, in ms.

    The median over the repeats. What a ticker sees of an idle loop is told as well.
    """
    stalls: dict[str, float] = {"an idle loop": await _stall_ms(_idle, repeats)}
    for kind in (OursSqliteFull, OursPostgresql):
        contestant = open_.get(kind.name)
        if contestant is not None:
            stalls[contestant.name] = await _stall_ms(_reader(contestant, "read-1000"), repeats)
    for name in ("raw asyncpg, one connection", "LangGraph, SQLite", "LangGraph, PostgreSQL"):
        if name in open_:
            stalls[name] = await _stall_ms(_reader(open_[name], "read-1000"), repeats)
    return stalls


async def _idle() -> int:
    await asyncio.sleep(0.02)
    return 0


async def _stall_ms(read: Callable[[], Awaitable[int]], repeats: int) -> float:
    longest: list[float] = []
    for _ in range(repeats):
        gaps = [0.0]
        reading = True

        async def tick(gaps: list[float] = gaps) -> None:
            last = time.perf_counter()
            while reading:  # noqa: B023 - ended by the lines below
                await asyncio.sleep(0.0005)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0.002)
        await read()
        reading = False
        await ticker
        longest.append(max(gaps))
    return median(longest) * 1e3
