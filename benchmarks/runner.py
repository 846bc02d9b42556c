"""The comparison: every subject has its turns in each round."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import quantiles

from .servers import Servers
from .subject import POWER_LOSS, Cell, Operation, Sample, Subject
from .subjects import HUGE, LARGE, OURS, SUBJECTS
from .timing import progress, turns
from .values import HUNDRED_KILOBYTES, KILOBYTE, Values

__all__ = ["COMMITS", "COMMIT_TASKS", "MAX_TASKS", "CellResult", "Runner"]

MAX_TASKS = 64
HUGE_SIZE = 5_000_000
COMMIT_TASKS = (1, MAX_TASKS)
COMMITS: tuple[Operation, ...] = ("commit", "fenced")


@dataclass
class CellResult:
    """The results of one cell; every list has an entry per round."""

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


class Runner:
    """Sets up the subjects, runs the rounds, and records failures.

    Attributes:
        open: The subjects that could be set up, by name.
        results: The results of each cell, by its key.
        failures: The error of each subject or cell that failed.
    """

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
                self.fail(kind.name, error)
            else:
                self.open[kind.name] = subject

    async def close(self) -> None:
        for subject in self.open.values():
            try:
                await subject.close()
            except Exception as error:
                self.fail(f"closing {subject.name}", error)

    def fail(self, what: str, error: Exception) -> None:
        """Record an error and go on without what failed."""
        lines = str(error).strip().splitlines()
        self.failures[what] = f"{type(error).__name__}: {lines[-1][:160] if lines else ''}"
        progress(f"{what} failed: {self.failures[what]}")

    async def measure(self, rounds: int, seconds: float) -> None:
        """Measure values of 1 KB, then those of 100 KB in half as many rounds."""
        cells = _cells(self.open.values()) + _commit_cells(self.open.values(), COMMITS)
        await self._measure(cells, Values(KILOBYTE, distinct=4096), rounds, seconds)
        large = Values(HUNDRED_KILOBYTES, distinct=64)
        await self._measure(_large_cells(self.open.values()), large, (rounds + 1) // 2, seconds)

    async def measure_commits(self, rounds: int, seconds: float) -> None:
        """Measure only commits and fenced writes, and the plain writes to compare with."""
        cells = _commit_cells(self.open.values(), ("write", *COMMITS))
        await self._measure(cells, Values(KILOBYTE, distinct=4096), rounds, seconds)

    async def _measure(
        self, cells: list[Cell], values: Values, rounds: int, seconds: float
    ) -> None:
        started = 0
        for round_, cell in turns(cells, rounds):
            if round_ > started:
                started = round_
                progress(f"{values.size:,} bytes, round {round_} of {rounds}")
            if cell.key in self.failures:
                continue
            gc.collect()
            os.sync()  # do not wait for what the subject before has left to be written
            try:
                sample = await self.open[cell.subject].turn(
                    cell, seconds if round_ else seconds / 4, values
                )
            except Exception as error:
                self.fail(cell.key, error)
                self.results.pop(cell.key, None)
                continue
            if round_:
                self.results.setdefault(cell.key, CellResult(cell)).add(sample)

    async def measure_huge(self, rounds: int) -> dict[str, list[float]]:
        """Write one result of 5 MB per round and return the latencies, in milliseconds."""
        values = Values(HUGE_SIZE, distinct=1)
        names = [kind.name for kind in HUGE if kind.name in self.open]
        latencies_ms: dict[str, list[float]] = {name: [] for name in names}
        for round_, name in turns(names, rounds):
            gc.collect()
            begin = time.perf_counter()
            await self.open[name].write("run-0", "huge", values.next())
            if round_:
                latencies_ms[name].append((time.perf_counter() - begin) * 1e3)
        return latencies_ms


def _cells(subjects: Iterable[Subject]) -> list[Cell]:
    cells: list[Cell] = []
    for subject in subjects:
        cells += [Cell(subject.name, tasks) for tasks in subject.task_counts]
        if isinstance(subject, OURS):
            cells += [
                Cell(subject.name, 64, one_run=True),
                Cell(subject.name, 1, "context"),
                Cell(subject.name, 64, "context"),
                Cell(subject.name, 1, "get"),
            ]
    return cells


def _commit_cells(subjects: Iterable[Subject], operations: tuple[Operation, ...]) -> list[Cell]:
    return [
        Cell(subject.name, tasks, operation)
        for subject in subjects
        if isinstance(subject, OURS) and subject.survives == POWER_LOSS
        for tasks in COMMIT_TASKS
        for operation in operations
    ]


def _large_cells(subjects: Iterable[Subject]) -> list[Cell]:
    return [
        Cell(subject.name, tasks, size=HUNDRED_KILOBYTES)
        for subject in subjects
        if isinstance(subject, LARGE)
        for tasks in (1, 16)
        if tasks in subject.task_counts
    ]
