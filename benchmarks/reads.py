"""Reading whole runs, as a resume does, and how long that blocks the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from .runner import Runner
from .subject import Subject
from .subjects import OursPostgresql, OursSqliteFull, RawAsyncpgPool
from .timing import median_ms, turns
from .values import KILOBYTE, Values

__all__ = ["ReadResult", "measure_reads", "measure_stalls"]

SIZES = (10, 100, 1_000)
STALLS = (
    OursSqliteFull.name, OursPostgresql.name, "raw asyncpg, one connection",
    "LangGraph, SQLite", "LangGraph, PostgreSQL",
)  # fmt: skip


@dataclass
class ReadResult:
    """Reading one run with one subject: the median latency of each round."""

    subject: str
    steps: int
    ms: list[float] = field(default_factory=list)


async def measure_reads(runner: Runner, *, rounds: int, seconds: float) -> dict[str, ReadResult]:
    """Read runs of each size with every subject that can.

    Args:
        runner: Has the subjects, and records those that fail.
        rounds: Number of medians to take.
        seconds: How long each subject reads in a round.
    """
    results: dict[str, ReadResult] = {}
    values = Values(KILOBYTE, distinct=4096)
    for name, subject in runner.open.items():
        # The pool reads as the single connection does.
        if type(subject).read is Subject.read or isinstance(subject, RawAsyncpgPool):
            continue
        try:
            for steps in SIZES:
                await _fill(subject, f"read-{steps}", steps, values)
        except Exception as error:
            runner.fail(f"reading: {name}", error)
        else:
            results |= {f"{name} | {steps}": ReadResult(name, steps) for steps in SIZES}
    for round_, result in turns(list(results.values()), rounds):
        read = partial(runner.open[result.subject].read, f"read-{result.steps}")
        ms = await median_ms(read, seconds=seconds)
        if round_:
            result.ms.append(ms)
    return results


async def _fill(subject: Subject, run: str, steps: int, values: Values) -> None:
    await subject.start(run)
    for step in range(steps):
        await subject.write(run, f"step-{step:012d}", values.next())
    if (count := await subject.read(run)) != steps:
        raise RuntimeError(f"{subject.name} returned {count} of {steps} steps")


async def measure_stalls(runner: Runner, *, repeats: int) -> dict[str, float]:
    """Return how long the event loop was blocked while 1,000 steps were read, in milliseconds.

    Each figure is the median over the repeats of the longest gap that a ticking task saw. The
    figure of an idle event loop is included.
    """
    stalls = {"idle event loop": await _stall_ms(partial(asyncio.sleep, 0.02), repeats)}
    for name in STALLS:
        if name in runner.open:
            stalls[name] = await _stall_ms(partial(runner.open[name].read, "read-1000"), repeats)
    return stalls


async def _stall_ms(read: Callable[[], Awaitable[object]], repeats: int) -> float:
    longest: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            longest[-1] = max(longest[-1], now - last)
            last = now

    for _ in range(repeats):
        longest.append(0.0)
        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0.002)
        await read()
        await asyncio.sleep(0.001)  # one more tick, which sees a gap at the end of the read
        ticker.cancel()
    return median(longest) * 1e3
