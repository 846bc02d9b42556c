"""Faults that need a run of their own: `make chaos ARGS='--scenario NAME'`."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import asyncpg

from ..history import History, check, read_history
from . import files
from .environments import Environment, Postgresql, Sqlite
from .power_loss import STRACE, images
from .round import Drive, Review, Round, files_of, read_all

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
            await asyncio.sleep(rng.uniform(0.2, 1.0))
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
        following = [*(began for began, _, _ in self.outages[1:]), time.monotonic_ns()]
        for (began, down, up), next_began in zip(self.outages, following, strict=True):
            long = " (outage over 0.9 s)" if up - down > _OUTAGE_S * 1e9 else ""
            result.notes[f"restarts{long}"] += 1
            met = [one for one in left if one.began <= up and (one.ended or 0) >= began]
            for one in met:
                failed = one.error == "StoreUnavailableError"
                kind = "in flight" if one.began < down else "begun while it was down"
                result.notes[f"calls {kind}{long}"] += 1
                result.notes[f"calls {kind}{long}: StoreUnavailableError"] += failed
                # One that had waited may have been sent before the next restart.
                if failed and one.began >= down and not long and (one.ended or 0) < next_began:
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
    for image, records in found:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, content in image.items():
                (folder / Path(file).name).write_bytes(content)
            (folder / "w.jsonl").write_bytes(records)
            (folder / "marks.jsonl").write_text(
                f'{{"store":"w0.0","gone":{time.monotonic_ns()}}}\n'
            )
            url = f"sqlite:///{folder}/{environment.file.name}"
            for error in await read_all(url, folder):
                round_.result.undocumented[f"after loss of power: {error!r}"] += 1
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
    "disk-full": Scenario(files.SmallDisk, files.fill_disk),
    "disk-fails": Scenario(files.FailingDisk, files.fail_writes),
    "file-read-only": Scenario(Sqlite, files.write_to_read_only),
    "file-truncated": Scenario(files.Damaged, files.truncate),
    "power-loss": Scenario(_Traced, _write_for_a_while, _lose_power, workers=1),
    "loop-ends-sqlite": Scenario(Sqlite, _end_loops, ending="abandon"),
    "loop-ends-postgresql": Scenario(_Patient, _end_loops, ending="abandon"),
    "fork-sqlite": Scenario(Sqlite, _wait, ending="fork"),
    "fork-postgresql": Scenario(_Patient, _wait, ending="fork"),
}
"""The scenarios by name."""
