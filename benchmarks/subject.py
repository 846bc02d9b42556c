"""What every subject does: the one interface, and the one loop that measures it."""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .servers import Servers
from .values import Json, Values

__all__ = ["Cell", "Operation", "Sample", "Subject"]

Operation = Literal["write", "context", "get", "commit", "fenced"]


@dataclass
class Sample:
    """What one turn of one subject gave."""

    count: int
    elapsed_s: float
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.count / self.elapsed_s


@dataclass(frozen=True)
class Cell:
    """One thing that is measured once a round.

    Attributes:
        subject: its name.
        tasks: how many tasks call at once, each for its own run.
        operation: which method of the subject they call.
        one_run: all of them for the same run instead.
        size: bytes of a value.
    """

    subject: str
    tasks: int
    operation: Operation = "write"
    one_run: bool = False
    size: int = 1_000

    @property
    def key(self) -> str:
        extras: list[str] = [self.operation] if self.operation != "write" else []
        extras += ["one run"] if self.one_run else []
        extras += [f"{self.size // 1000} KB"] if self.size != 1_000 else []
        return " | ".join([f"{self.subject} @ {self.tasks}", *extras])


class Subject(ABC):
    """One way to keep the steps of a run.

    Attributes:
        name: how the tables call it.
        database: what is behind it.
        survives: what a write survives once it has returned.
        task_counts: with how many tasks it is measured.
    """

    name: ClassVar[str]
    database: ClassVar[str]
    survives: str = "loss of power"
    task_counts: tuple[int, ...] = (1, 16, 64)

    LARGE_STEPS = 256
    """Large values replace one another among so many steps, or they would fill the disk."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    @abstractmethod
    async def setup(self, servers: Servers) -> None:
        """Connect to a new database and make its tables."""

    @abstractmethod
    async def start(self, run: str) -> None:
        """Begin a run, to which steps can be written."""

    @abstractmethod
    async def write(self, run: str, step: str, value: Json) -> None:
        """Write one completed step; it is committed when this returns."""

    async def read(self, run: str) -> int:
        """Read a whole run and decode every value; give the number of its steps."""
        raise NotImplementedError

    async def context(self, run: str, step: str, value: Json) -> None:
        """Replace the context of a run."""
        raise NotImplementedError

    async def get(self, run: str, step: str, value: Json) -> None:
        """Read one step of a run that has been filled with a hundred."""
        raise NotImplementedError

    async def commit(self, run: str, step: str, value: Json) -> None:
        """Write one completed step and replace the context of its run, in one transaction."""
        raise NotImplementedError

    async def fenced(self, run: str, step: str, value: Json) -> None:
        """Write one completed step, if the claim on its run holds."""
        raise NotImplementedError

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything."""

    def step_id(self, number: int, size: int) -> str:
        """Name the next step: a new one, ordered by time."""
        return f"step-{number if size <= 1_000 else number % self.LARGE_STEPS:012d}"

    async def turn(self, cell: Cell, seconds: float, values: Values) -> Sample:
        """Call for so many seconds, each task as soon as its last call has returned."""
        runs = [f"run-{0 if cell.one_run else task}" for task in range(cell.tasks)]
        call = getattr(self, cell.operation)
        sample = Sample(0, 0.0)
        begun = time.perf_counter()
        deadline = begun + seconds

        async def one_task(run: str) -> None:
            while (before := time.perf_counter()) < deadline:
                await call(run, self.step_id(next(self._numbers), cell.size), values.next())
                sample.latencies_s.append(time.perf_counter() - before)

        await asyncio.gather(*(one_task(run) for run in runs))
        sample.elapsed_s = time.perf_counter() - begun
        sample.count = len(sample.latencies_s)
        return sample
