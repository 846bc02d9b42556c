"""Faults that need a run of their own: `make chaos ARGS='--scenario NAME'`."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import asyncpg

from ..history import History, check, read_history
from .environments import Environment, Postgresql, Sqlite
from .power_loss import STRACE, images
from .round import Drive, Review, Round, files_of, read_all
from .workers import Worker

__all__ = ["SCENARIOS", "Scenario"]


class Scenario(NamedTuple):
    """A scenario.

    Attributes:
        environment: its database.
        drive: what happens.
        review: what is counted in the end.
        ending: how the processes end.
        workers: how many there are.
    """

    environment: type[Environment]
    drive: Drive
    review: Review | None = None
    ending: str = "close"
    workers: int = 2


# -- 100 restarts ---------------------------------------------------------------------------

_OUTAGE_S: Final = 0.9
"""What all retries of a call take at least."""


class _Patient(Postgresql):
    options: ClassVar[dict[str, Any]] = {}

    def url(self, place: int, name: str) -> str:
        return self.direct_url

    def options_of(self, place: int) -> dict[str, Any]:
        return {}


class _Restarts:
    def __init__(self) -> None:
        self.outages: list[tuple[int, int, int]] = []

    async def drive(self, round_: Round, rng: random.Random) -> None:
        assert isinstance(round_.environment, Postgresql)
        for _ in range(100):
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            began = time.monotonic_ns()
            await round_.environment.server.stop(rng.choice(["fast", "immediate"]))
            down = time.monotonic_ns()
            await round_.environment.server.start()
            self.outages.append((began, down, time.monotonic_ns()))
            round_.result.faults["server restarted"] += 1
        await round_.progress()

    async def review(self, round_: Round, history: History) -> None:
        """Count the calls that the restarts met, and how they ended."""
        result = round_.result
        left = [one for one in history.operations if one.ended is not None]
        for began, down, up in self.outages:
            long = " (outage over 0.9 s)" if up - down > _OUTAGE_S * 1e9 else ""
            result.notes[f"restarts{long}"] += 1
            met = [one for one in left if one.began <= up and (one.ended or 0) >= began]
            for one in met:
                failed = one.error == "StoreUnavailableError"
                kind = "in flight" if one.began < down else "begun while it was down"
                result.notes[f"calls {kind}{long}"] += 1
                result.notes[f"calls {kind}{long}: StoreUnavailableError"] += failed
                if failed and one.began >= down and not long:
                    result.undocumented["a call that had not been sent failed"] += 1
            left = [one for one in left if one.began > up]
        refused = sum(one.error == "StoreUnavailableError" for one in history.operations)
        result.notes["StoreUnavailableError in total"] += refused


# -- the server's clock ---------------------------------------------------------------------

_STEPPED = """
    CREATE SCHEMA stepped;
    CREATE TABLE stepped.clock (ahead interval);
    INSERT INTO stepped.clock VALUES ('0');
    CREATE FUNCTION stepped.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT pg_catalog.clock_timestamp() + ahead FROM stepped.clock $$;
    ALTER DATABASE postgres SET search_path = stepped, pg_catalog, public;
"""


class _SteppedClock(_Patient):
    """A server whose `clock_timestamp()` can be set."""

    has_our_clock: ClassVar[bool] = False

    async def start(self) -> None:
        await super().start()
        await self.execute(_STEPPED)

    async def execute(self, sql: str, *arguments: object) -> None:
        connection = await asyncpg.connect(self.direct_url)
        await connection.execute(sql, *arguments)
        await connection.close()


async def _step_clock(round_: Round, rng: random.Random) -> None:
    assert isinstance(round_.environment, _SteppedClock)
    for _ in range(30):
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        ahead_s = rng.choice([-3600, -60, -5, -1, 0, 1, 5, 60, 3600])
        await round_.environment.execute(
            "UPDATE stepped.clock SET ahead = $1", dt.timedelta(seconds=ahead_s)
        )
        round_.result.faults["clock stepped"] += 1
    await round_.progress()


# -- disks ----------------------------------------------------------------------------------


class _SmallDisk(Sqlite):
    """A file in a file system of its own, which is small. Needs root."""

    expects: ClassVar[tuple[str, ...]] = ("WorkflowStoreError", "StoreUnavailableError")

    async def start(self) -> None:
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        await _command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(self.disk))
        self.stack.push_async_callback(_command, "umount", "--lazy", str(self.disk))
        await super().start()

    @property
    def direct_url(self) -> str:
        self.file = self.disk / "store.db"
        return f"sqlite:///{self.file}"


async def _fill_disk(round_: Round, rng: random.Random) -> None:
    assert isinstance(round_.environment, _SmallDisk)
    ballast = round_.environment.disk / "ballast"
    for _ in range(15):
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        ballast.unlink()
        round_.result.faults["disk full"] += 1
        await round_.progress()


class _FailingDisk(Sqlite):
    """A file whose processes cannot write beyond a size for a time: `EFBIG` from `write`."""

    expects: ClassVar[tuple[str, ...]] = ("WorkflowStoreError", "StoreUnavailableError")

    async def start(self) -> None:
        await super().start()
        self._copying: dict[str, asyncio.subprocess.Process] = {}

    async def history_file(self, name: str) -> Path:
        """Return a pipe, to which the limit does not apply; another process writes the file."""
        pipe = self.folder / f"{name}.pipe"
        os.mkfifo(pipe)
        with (self.folder / f"{name}.jsonl").open("wb") as file:
            self._copying[name] = await asyncio.create_subprocess_exec("cat", pipe, stdout=file)
        return pipe

    async def gone(self, worker: Worker, place: int) -> bool:
        await self._copying[worker.name].wait()
        return True


@contextlib.asynccontextmanager
async def _limited_files(round_: Round, size: int) -> AsyncIterator[None]:
    pids = [worker.pid for worker in round_.workers]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


async def _fail_writes(round_: Round, rng: random.Random) -> None:
    assert isinstance(round_.environment, _FailingDisk)
    for _ in range(15):
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        async with _limited_files(round_, rng.choice([0, 4096 * 10, 4096 * 200])):
            await asyncio.sleep(rng.uniform(0.2, 1.5))
        round_.result.faults["write failed"] += 1
        await round_.progress()


async def _command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    if await process.wait():
        raise OSError(f"{words[0]} failed")


# -- loss of power --------------------------------------------------------------------------


class _Traced(Sqlite):
    """A file whose writes and syncs are recorded; needs strace."""

    def interpreter(self, python: str) -> str:
        self.trace = self.folder / "trace.txt"
        self.before = self.file.read_bytes()
        script = self.folder / "traced"
        command = STRACE.format(output=self.trace)
        script.write_text(f'#!/bin/sh\nexec {command} "{python}" "$@"\n')
        script.chmod(0o700)
        return str(script)


async def _write_for_a_while(round_: Round, rng: random.Random) -> None:
    await asyncio.sleep(10)


async def _lose_power(round_: Round, history: History) -> None:
    """Open the file as it may be after loss of power, many times, and check the history."""
    environment = round_.environment
    assert isinstance(environment, _Traced)
    written = round_.workers[0].settings.file
    found = images(
        environment.trace, environment.file, Path(written),
        before=environment.before, rng=random.Random(1), count=100,
    )  # fmt: skip
    for files, records in found:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, content in files.items():
                (folder / Path(file).name).write_bytes(content)
            (folder / "w.jsonl").write_bytes(records)
            (folder / "marks.jsonl").write_text(
                f'{{"store":"w0.0","gone":{time.monotonic_ns()}}}\n'
            )
            await read_all(f"sqlite:///{folder}/{environment.file.name}", folder)
            round_.result.violations += check(read_history(*files_of(folder)))
            round_.result.faults["loss of power"] += 1


# -- event loops and processes --------------------------------------------------------------


async def _end_loops(round_: Round, rng: random.Random) -> None:
    for place in range(8):
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        await round_.end_and_replace(place % len(round_.workers), within_s=20)
        round_.result.faults["event loop ended with calls in flight"] += 1
        await round_.progress()


async def _wait(round_: Round, rng: random.Random) -> None:
    await asyncio.sleep(15)
    round_.result.faults["process forked, several times a second"] += 1


_restarts = _Restarts()

SCENARIOS: Final[dict[str, Scenario]] = {
    "restarts": Scenario(_Patient, _restarts.drive, _restarts.review),
    "clock": Scenario(_SteppedClock, _step_clock),
    "disk-full": Scenario(_SmallDisk, _fill_disk),
    "disk-fails": Scenario(_FailingDisk, _fail_writes),
    "power-loss": Scenario(_Traced, _write_for_a_while, _lose_power, workers=1),
    "loop-ends-sqlite": Scenario(Sqlite, _end_loops, ending="abandon"),
    "loop-ends-postgresql": Scenario(_Patient, _end_loops, ending="abandon"),
    "fork-sqlite": Scenario(Sqlite, _wait, ending="fork"),
    "fork-postgresql": Scenario(_Patient, _wait, ending="fork"),
}
"""The scenarios by name."""
