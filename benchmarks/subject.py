"""The interface of every subject of the comparison, and the loop that measures it."""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .servers import Servers
from .values import KILOBYTE, Json, Values

__all__ = ["CRASH", "POWER_LOSS", "Cell", "Operation", "Sample", "Subject"]

Operation = Literal["write", "context", "get", "commit", "fenced"]

POWER_LOSS, CRASH = "power loss", "process crash"


@dataclass
class Sample:
    """The calls of one turn."""

    count: int
    elapsed_s: float
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.count / self.elapsed_s


@dataclass(frozen=True)
class Cell:
    """One combination that is measured once per round.

    Attributes:
        subject: The subject's name.
        tasks: Number of concurrent tasks.
        operation: The method that they call.
        one_run: Whether all tasks write to the same run instead of one each.
        size: Bytes of a value.
    """

    subject: str
    tasks: int
    operation: Operation = "write"
    one_run: bool = False
    size: int = KILOBYTE

    @property
    def key(self) -> str:
        extras: list[str] = [self.operation] if self.operation != "write" else []
        extras += ["one run"] if self.one_run else []
        extras += [f"{self.size // 1000} KB"] if self.size != KILOBYTE else []
        return " | ".join([f"{self.subject} @ {self.tasks}", *extras])


class Subject(ABC):
    """One way to store the steps of a run.

    Attributes:
        name: Its name in the tables.
        database: The kind of database behind it.
        survives: The worst failure that an acknowledged write survives.
        task_counts: Numbers of concurrent tasks to measure it with.
    """

    name: ClassVar[str]
    database: ClassVar[str]
    survives: str = POWER_LOSS
    task_counts: tuple[int, ...] = (1, 16, 64)

    LARGE_STEPS = 256
    """Large values are written to this many steps in turn, so that they do not fill the disk."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    @abstractmethod
    async def setup(self, servers: Servers) -> None:
        """Connect to a new database and create its tables."""

    @abstractmethod
    async def start(self, run: str) -> None:
        """Create a run."""

    @abstractmethod
    async def write(self, run: str, step: str, value: Json) -> None:
        """Write one completed step and return once it is committed."""

    async def read(self, run: str) -> int:
        """Read a whole run, decode every value, and return the number of its steps."""
        raise NotImplementedError

    async def context(self, run: str, step: str, value: Json) -> None:
        """Replace the context of a run."""
        raise NotImplementedError

    async def get(self, run: str, step: str, value: Json) -> None:
        """Read one step of a run of a hundred steps."""
        raise NotImplementedError

    async def commit(self, run: str, step: str, value: Json) -> None:
        """Write one completed step and replace the context of its run, in one transaction."""
        raise NotImplementedError

    async def fenced(self, run: str, step: str, value: Json) -> None:
        """Write one completed step, if the claim on its run is still held."""
        raise NotImplementedError

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    def step_id(self, number: int, size: int) -> str:
        """Return the id of the next step to write: a new one, ordered by time."""
        return f"step-{number if size <= KILOBYTE else number % self.LARGE_STEPS:012d}"

    async def turn(self, cell: Cell, seconds: float, values: Values) -> Sample:
        """Call for `seconds`; each task calls again as soon as its last call has returned."""
        runs = [f"run-{0 if cell.one_run else task}" for task in range(cell.tasks)]
        call = getattr(self, cell.operation)
        latencies_s: list[float] = []
        begin = time.perf_counter()
        deadline = begin + seconds

        async def repeat(run: str) -> None:
            while (before := time.perf_counter()) < deadline:
                await call(run, self.step_id(next(self._numbers), cell.size), values.next())
                latencies_s.append(time.perf_counter() - before)

        await asyncio.gather(*(repeat(run) for run in runs))
        return Sample(len(latencies_s), time.perf_counter() - begin, latencies_s)
