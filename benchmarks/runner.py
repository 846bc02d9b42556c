"""The rounds: in each, every subject has its turns, in an order that changes."""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from statistics import median, quantiles

from .servers import Servers
from .subject import Cell, Operation, Sample, Subject
from .subjects import LARGE, OURS, SUBJECTS
from .values import KILOBYTE, Values

__all__ = ["COMMITS", "COMMIT_TASKS", "MAX_TASKS", "CellResult", "Runner", "median_ms", "say"]

MAX_TASKS = 64
LARGE_SIZE = 100_000
COMMIT_TASKS = (1, MAX_TASKS)
COMMITS: tuple[Operation, ...] = ("commit", "fenced")


@dataclass
class CellResult:
    """What the rounds gave for one cell; all lists have an entry per round."""

    cell: Cell
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.rates.append(sample.rate)
        if len(sample.latencies_s) > 1:
            cuts = quantiles(sample.latencies_s, n=100, method="inclusive")
            self.p50_ms.append(cuts[49] * 1e3)
            self.p99_ms.append(cuts[98] * 1e3)

    @property
    def rate(self) -> float:
        return median(self.rates)


class Runner:
    """Opens the subjects, runs the rounds, and remembers who could not take part."""

    def __init__(self, servers: Servers, *, only: str | None = None) -> None:
        self._servers = servers
        self._only = only
        self.open: dict[str, Subject] = {}
        self.results: dict[str, CellResult] = {}
        self.failures: dict[str, str] = {}

    async def setup(self) -> None:
        for kind in SUBJECTS:
            if self._only and self._only not in kind.name and kind not in OURS:
                continue
            subject = kind()
            try:
                await subject.setup(self._servers)
                for run in range(MAX_TASKS):
                    await subject.start(f"run-{run}")
            except Exception as error:
                self.failures[kind.name] = _reason(error)
                say(f"{kind.name} cannot take part: {_reason(error)}")
            else:
                self.open[kind.name] = subject

    async def close(self) -> None:
        for subject in self.open.values():
            try:
                await subject.close()
            except Exception as error:
                say(f"closing {subject.name}: {_reason(error)}")

    async def rounds(self, count: int, seconds: float) -> None:
        """Measure small values in so many rounds, then large ones in half as many."""
        small, large = Values(KILOBYTE, distinct=4096), Values(LARGE_SIZE, distinct=64)
        cells = _cells(self.open.values()) + _commit_cells(self.open.values(), COMMITS)
        await self._rounds(cells, small, count, seconds)
        await self._rounds(_large_cells(self.open.values()), large, (count + 1) // 2, seconds)

    async def commit_rounds(self, count: int, seconds: float) -> None:
        """Measure only commits and fenced writes, and the plain writes that they compare with."""
        cells = _commit_cells(self.open.values(), ("write", *COMMITS))
        await self._rounds(cells, Values(KILOBYTE, distinct=4096), count, seconds)

    async def _rounds(self, cells: list[Cell], values: Values, count: int, seconds: float) -> None:
        for round_ in range(count + 1):
            # The first one warms up: caches, connections, statements; it does not count.
            warms_up = round_ == 0
            order = cells.copy()
            # Not one rotation after the other, in which everyone would keep its neighbours
            # and suffer from what they leave to the disk; the same shuffles in every run.
            random.Random(round_).shuffle(order)  # noqa: S311 - no secret
            for cell in order:
                if cell.key in self.failures:
                    continue
                gc.collect()
                os.sync()  # what others have left to be written is not this one's to wait for
                try:
                    sample = await self.open[cell.subject].turn(
                        cell, seconds / 4 if warms_up else seconds, values
                    )
                except Exception as error:
                    self.failures[cell.key] = _reason(error)
                    self.results.pop(cell.key, None)
                    say(f"{cell.key} failed: {_reason(error)}")
                    continue
                if not warms_up:
                    self.results.setdefault(cell.key, CellResult(cell)).add(sample)
            say(f"{values.size:,} bytes, round {round_} of {count}")


def _cells(subjects: Iterable[Subject]) -> list[Cell]:
    cells: list[Cell] = []
    for each in subjects:
        cells += [Cell(each.name, tasks) for tasks in each.task_counts]
        if isinstance(each, OURS):
            cells += [
                Cell(each.name, 64, one_run=True),
                Cell(each.name, 1, "context"),
                Cell(each.name, 64, "context"),
                Cell(each.name, 1, "get"),
            ]
    return cells


def _commit_cells(subjects: Iterable[Subject], operations: tuple[Operation, ...]) -> list[Cell]:
    return [
        Cell(each.name, tasks, operation)
        for each in subjects
        if isinstance(each, OURS) and each.survives == "loss of power"
        for tasks in COMMIT_TASKS
        for operation in operations
    ]


def _large_cells(subjects: Iterable[Subject]) -> list[Cell]:
    return [
        Cell(each.name, tasks, size=LARGE_SIZE)
        for each in subjects
        if isinstance(each, LARGE)
        for tasks in (1, 16)
        if tasks in each.task_counts
    ]


async def median_ms(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Call again and again for so long, at least three times; give the median of the latency."""
    gc.collect()
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(took) < 3:
        before = time.perf_counter()
        await call()
        took.append(time.perf_counter() - before)
    return median(took) * 1e3


def say(text: str) -> None:
    """Tell the person who waits how far things are."""
    print(text, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1][:160] if lines else ''}"
