"""A round of `make chaos`: processes use a store, faults happen, and the history is checked."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ...factory import open_store
from ..history import History, RecordedStore, Recorder, check, read_history
from .environments import Environment, Postgresql, Sqlite
from .results import Result
from .schedule import deck
from .worker import Settings
from .workers import Worker, next_generation
from .workload import Workload

__all__ = ["Plan", "Round", "read_all"]

HANG_S: Final = 300.0
"""A call that waits longer hangs: even on a busy machine, all its timeouts and retries together
are shorter."""

ENVIRONMENTS: Final[dict[str, type[Environment]]] = {"postgresql": Postgresql, "sqlite": Sqlite}


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
        ending: how the processes end, as in `Settings`.
        uvloop: whether they use uvloop.
        python: their interpreter.
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
    ending: str = "close"
    uvloop: bool = False
    python: str = sys.executable


Drive: TypeAlias = "Callable[[Round, random.Random], Awaitable[None]]"
Review: TypeAlias = "Callable[[Round, History], Awaitable[None]]"


class Round:
    """A round. Faults see the attributes.

    Attributes:
        environment: the database.
        workers: the processes that use it.
        result: what has happened so far.
    """

    def __init__(
        self, plan: Plan, folder: Path, environment: type[Environment] | None = None
    ) -> None:
        self.environment = (environment or ENVIRONMENTS[plan.database])(folder)
        self.workers: list[Worker] = []
        self.result = Result()
        self._plan = plan
        self._folder = folder
        self._log = folder / "workers.log"
        self._ended: list[Worker] = []
        self._gone: list[asyncio.Task[None]] = []
        self._marks = Recorder(folder / "marks.jsonl", "marks")

    async def run(self, drive: Drive | None = None, review: Review | None = None) -> Result:
        """Run the round and check its history.

        Args:
            drive: what happens while the processes use the database; by default faults.
            review: looks at the history, too.
        """
        began = time.monotonic()
        plan = self._plan
        rng = random.Random(f"{plan.seed}/{plan.number}")
        if self.environment.has_our_clock:
            self._marks.relate_clocks()
        else:
            self._marks.clock_is_set()
        current = asyncio.current_task()
        assert current is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
        async with self.environment.stack:
            self.environment.stack.push_async_callback(self._kill_all)
            await self.environment.start()
            for place in range(plan.workers):
                self.workers.append(await self._worker(place, began))
                await self.workers[-1].start()
            await self.progress()
            await (self._let_fail(rng) if drive is None else drive(self, rng))
            for worker in self.workers:
                if not await worker.stop(HANG_S):
                    self.result.hangs[f"{worker.name} did not end"] += 1
                self._note_gone(worker)
            await asyncio.gather(*self._gone)
            await read_all(self.environment.direct_url, self._folder)
        self._marks.close()
        for worker in self._ended:
            self._sum(worker)
        history = read_history(*files_of(self._folder))
        self.result.violations = check(history)
        if review is not None:
            await review(self, history)
        self.result.seconds = time.monotonic() - began
        return self.result

    # -- processes --------------------------------------------------------------------------

    async def _worker(self, place: int, epoch: float) -> Worker:
        plan, name = self._plan, f"w{place}.0"
        workload = Workload(name, plan.seed * 1000 + plan.number, epoch, plan.tasks)
        environment = self.environment
        settings = Settings(
            environment.url(place, name), str(await environment.history_file(name)),
            environment.options_of(place), workload, plan.ending, plan.uvloop,
        )  # fmt: skip
        return Worker(settings, self._log, environment.interpreter(plan.python))

    async def replace(self, place: int) -> None:
        """Start a process in the place of one that has ended."""
        before = self.workers[place]
        self._note_gone(before)
        name = before.next_name
        file = await self.environment.history_file(name)
        url = self.environment.url(place, name)
        self.workers[place] = next_generation(before, self._log, file, url)
        await self.workers[place].start()

    async def _kill_all(self) -> None:
        """Leave no process behind, also if the round failed."""
        for worker in self.workers:
            if worker.runs:
                await worker.kill()

    async def end_and_replace(self, place: int, within_s: float) -> None:
        """End a process in its own way, and start another."""
        worker = self.workers[place]
        if not await worker.stop(within_s):
            self.result.hangs[f"{worker.name} did not end"] += 1
        await self.replace(place)

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
            await self.progress()

    def _writes(self) -> int:
        return sum(worker.report.writes for worker in (*self.workers, *self._ended))

    async def progress(self, within_s: float = HANG_S) -> None:
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

    def _sum(self, worker: Worker) -> None:
        report, result = worker.report, self.result
        result.writes += report.writes
        for kind, count in (report.ended or {}).items():
            result.calls += count
            if kind.endswith("Error"):
                result.errors[kind] += count
        for error, count in (report.undocumented or {}).items():
            if not error.startswith(self.environment.expects):
                result.undocumented[error] += count


def files_of(folder: Path) -> list[Path]:
    """Return the files of a history."""
    return [*folder.glob("*.jsonl")]


async def read_all(url: str, folder: Path) -> None:
    """Read every run of a history once more, after the last fault."""
    operations = read_history(*files_of(folder)).operations
    recorder = Recorder(folder / "final.jsonl", "final")
    async with open_store(url) as store:
        for run in dict.fromkeys(operation.run for operation in operations if operation.run):
            await RecordedStore(store, recorder).load_run(run)
    recorder.close()
