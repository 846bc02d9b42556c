"""A round of `make chaos`: processes use a store, faults happen, and the history is checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...factory import open_store
from ..history import RecordedStore, Recorder, Violation, check, read_history
from .environments import Environment, Postgresql, Sqlite
from .schedule import deck
from .worker import Settings
from .workers import Worker, next_generation
from .workload import Workload

__all__ = ["Plan", "Result", "Round"]

HANG_S: Final = 60.0
"""A call that waits longer hangs: all its timeouts and retries together are shorter."""

ENVIRONMENTS: Final[dict[str, type[Environment]]] = {"postgresql": Postgresql, "sqlite": Sqlite}
EXPECTED: Final = {"StoreUnavailableError", "CancelledError", "RunNotFoundError", "ClaimLostError"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round is to do.

    Attributes:
        database: `postgresql` or `sqlite`.
        seed: of the faults and of the calls.
        number: the number of the round.
        writes: it ends after so many acknowledged writes,
        faults: and so many faults,
        seconds: or after this time.
        workers: the number of processes.
        tasks: the number of clients in each.
        only: only faults whose name contains this.
    """

    database: str
    seed: int
    number: int
    writes: int
    faults: int
    seconds: float
    workers: int
    tasks: int
    only: str | None = None


@dataclass(slots=True)
class Result:
    """What happened in a round.

    Attributes:
        writes: acknowledged writes.
        calls: all calls.
        errors: calls that ended with an error, by its name.
        faults: the faults that happened.
        missed: faults for which there was no occasion.
        violations: what no correct store could have answered.
        undocumented: errors that the package does not document.
        hangs: calls and processes that did not end, by name.
        seconds: how long it took.
    """

    writes: int = 0
    calls: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    undocumented: Counter[str] = field(default_factory=Counter)
    hangs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Round:
    """A round. Faults see the attributes.

    Attributes:
        environment: the database.
        workers: the processes that use it.
        result: what has happened so far.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.environment = ENVIRONMENTS[plan.database](folder)
        self.workers: list[Worker] = []
        self.result = Result()
        self._plan = plan
        self._folder = folder
        self._ended: list[Worker] = []
        self._gone: list[asyncio.Task[None]] = []
        self._marks = Recorder(folder / "marks.jsonl", "marks")

    async def run(self) -> Result:
        """Run the round and check its history."""
        began = time.monotonic()
        plan = self._plan
        rng = random.Random(f"{plan.seed}/{plan.number}")
        self._marks.relate_clocks()
        async with self.environment.stack:
            await self.environment.start()
            for place in range(plan.workers):
                self.workers.append(self._worker(place, began))
                await self.workers[-1].start()
            await self._progress(HANG_S)
            await self._let_fail(rng)
            for worker in self.workers:
                if not await worker.stop(HANG_S):
                    self.result.hangs[f"{worker.name} did not end"] += 1
                self._note_gone(worker)
            await asyncio.gather(*self._gone)
            await self._read_all()
        self._marks.close()
        for worker in self._ended:
            self._sum(worker)
        self.result.violations = check(read_history(*self._folder.glob("*.jsonl")))
        self.result.seconds = time.monotonic() - began
        return self.result

    # -- processes --------------------------------------------------------------------------

    def _worker(self, place: int, epoch: float) -> Worker:
        plan, name = self._plan, f"w{place}.0"
        workload = Workload(name, plan.seed * 1000 + plan.number, epoch, plan.tasks)
        settings = Settings(
            self.environment.url(place, name), str(self._file(name)),
            self.environment.options_of(place), workload,
        )  # fmt: skip
        return Worker(settings, self._folder / "workers.log")

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    async def replace(self, place: int) -> None:
        """Start a process in the place of one that was killed."""
        killed = self.workers[place]
        self._note_gone(killed)
        self.workers[place] = next_generation(
            killed,
            self._folder / "workers.log",
            self._file,
            lambda name: self.environment.url(place, name),
        )
        await self.workers[place].start()

    def _note_gone(self, worker: Worker) -> None:
        self._ended.append(worker)
        place = int(worker.name[1:].split(".")[0])

        async def note() -> None:
            if await self.environment.gone(worker, place):
                self._marks.write({"store": worker.name, "gone": time.monotonic_ns()})

        self._gone.append(asyncio.create_task(note()))

    # -- faults -----------------------------------------------------------------------------

    async def _let_fail(self, rng: random.Random) -> None:
        plan = self._plan
        until = time.monotonic() + plan.seconds
        cards = deck(rng, plan.database, plan.only)
        happened = 0
        while time.monotonic() < until:
            due = plan.writes * (happened + 1) / (plan.faults + 1)
            if happened >= plan.faults:
                if self._writes() >= plan.writes:
                    return
                await asyncio.sleep(0.1)
                continue
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            while self._writes() < due and time.monotonic() < until:
                await asyncio.sleep(0.05)
            name, fault = next(cards)
            try:
                done = await fault(self, rng)
            except Exception as error:
                raise RuntimeError(f"the fault {name!r} failed") from error
            (self.result.faults if done else self.result.missed)[name] += 1
            happened += done
            await self._progress(HANG_S)

    def _writes(self) -> int:
        return sum(worker.report.writes for worker in (*self.workers, *self._ended))

    async def _progress(self, within_s: float) -> None:
        """Wait until every process has written more."""
        before = {worker.name: worker.report.writes for worker in self.workers}
        deadline = time.monotonic() + within_s
        for place, worker in enumerate(self.workers):
            while worker.report.writes < before[worker.name] + 10:
                if not worker.runs:
                    self.result.hangs[f"{worker.name} ended"] += 1
                elif worker.report.oldest_s > HANG_S:
                    self.result.hangs[worker.report.oldest] += 1
                elif time.monotonic() > deadline:
                    self.result.hangs[f"{worker.name} made no progress"] += 1
                else:
                    await asyncio.sleep(0.02)
                    continue
                await worker.kill()
                await self.replace(place)
                break

    # -- the end ----------------------------------------------------------------------------

    async def _read_all(self) -> None:
        """Read every run once more, after the last fault."""
        runs = dict.fromkeys(
            operation.run
            for operation in read_history(*self._folder.glob("w*.jsonl")).operations
            if operation.run
        )
        recorder = Recorder(self._file("final"), "final")
        options: dict[str, Any] = {}
        async with open_store(self.environment.direct_url, **options) as store:
            for run in runs:
                await RecordedStore(store, recorder).load_run(run)
        recorder.close()

    def _sum(self, worker: Worker) -> None:
        report, result = worker.report, self.result
        result.writes += report.writes
        for kind, count in (report.ended or {}).items():
            result.calls += count
            if kind.endswith("Error"):
                result.errors[kind] += count
        result.undocumented.update(report.undocumented or {})
