"""Reading whole runs: a resume, beside the driver's two selects and beside other stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median

from .runner import median_ms
from .subject import Subject
from .subjects import SUBJECTS, OursPostgresql, OursSqliteFull
from .values import KILOBYTE, Values

__all__ = ["SIZES", "ReadResult", "measure_reads", "measure_stalls"]

SIZES = (10, 100, 1_000)


@dataclass
class ReadResult:
    """What reading one run with one subject took: a median of each round."""

    subject: str
    steps: int
    ms: list[float] = field(default_factory=list)


async def measure_reads(
    open_: dict[str, Subject], failures: dict[str, str], *, rounds: int, seconds: float
) -> dict[str, ReadResult]:
    """Read runs of each size with everyone who can, in turns.

    Args:
        open_: the subjects that take part, by name.
        failures: gets the reason of each that fails.
        rounds: how many medians to take.
        seconds: how long each subject reads in a round.
    """
    readers: dict[str, tuple[int, Callable[[], Awaitable[int]]]] = {}
    values = Values(KILOBYTE, distinct=4096)
    for name, subject in open_.items():
        if not _can_read(subject):
            continue
        try:
            for steps in SIZES:
                await _fill(subject, f"read-{steps}", steps, values)
                readers[f"{name} | {steps}"] = (steps, _reader(subject, f"read-{steps}"))
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


def _can_read(subject: Subject) -> bool:
    # The pool reads as the single connection does.
    return (
        type(subject).read is not Subject.read
        and subject.name != "raw asyncpg, pool of 10"
        and isinstance(subject, SUBJECTS)
    )


async def _fill(subject: Subject, run: str, steps: int, values: Values) -> None:
    await subject.start(run)
    for step in range(steps):
        await subject.write(run, f"step-{step:012d}", values.next())
    if (found := await subject.read(run)) != steps:
        raise RuntimeError(f"{found} of {steps} steps came back")


def _reader(subject: Subject, run: str) -> Callable[[], Awaitable[int]]:
    return lambda: subject.read(run)


async def measure_stalls(open_: dict[str, Subject], *, repeats: int) -> dict[str, float]:
    """Read 1,000 steps and watch the event loop: the longest time that it stood still, in ms.

    The median over the repeats. What a ticker sees of an idle loop is told as well.
    """
    stalls: dict[str, float] = {"an idle loop": await _stall_ms(_idle, repeats)}
    for kind in (OursSqliteFull, OursPostgresql):
        subject = open_.get(kind.name)
        if subject is not None:
            stalls[subject.name] = await _stall_ms(_reader(subject, "read-1000"), repeats)
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
