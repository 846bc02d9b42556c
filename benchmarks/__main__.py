"""`python -m benchmarks`, from the root of the repository."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from . import plots, report
from .claims import measure_claims
from .codec import measure_codec
from .goals import goals
from .growth import measure_growth
from .listing import measure_listing
from .machine import describe
from .memory import measure_memory
from .reads import measure_reads, measure_stalls
from .runner import LARGE_SIZE, Runner, say
from .servers import Servers
from .subject import Cell, Subject
from .subjects import OURS, SUBJECTS, RawAsyncpg, RawSqlite3Full
from .values import KILOBYTE, Json, Values

ROOT = Path(__file__).parents[1]
HUGE_SIZE = 5_000_000
PARTS = ("writes", "commits", "codec", "growth", "memory", "listing", "claims")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Mode:
    """How long everything takes."""

    rounds: int
    seconds: float
    read_rounds: int
    read_seconds: float
    growth: tuple[int, ...]
    growth_writes: int
    callers: int
    listing: tuple[int, int]
    listing_rounds: int
    listing_seconds: float
    claims: int
    claim_period_s: float
    claim_periods: int


FULL = Mode(15, 0.3, 9, 0.15, (10_000, 100_000, 1_000_000), 1_000, 100_000,
            (1_000, 1_000_000), 5, 0.1, 10_000, 10.0, 1)  # fmt: skip
QUICK = Mode(3, 0.1, 3, 0.04, (10_000, 50_000), 200, 20_000,
             (1_000, 20_000), 3, 0.03, 1_000, 1.0, 2)  # fmt: skip


async def _measure(servers: Servers, mode: Mode, only: str | None, part: str | None) -> Json:
    runner = Runner(servers, only="workflow-store" if part == "commits" else only)
    figures: dict[str, Any] = {"cells": runner.results, "reads": {}}
    others: Json = {"stalls": {}, "huge": {}, "codec": []}
    try:
        if part in {None, "writes", "commits"}:
            await runner.setup()
        if part == "commits":
            await runner.commit_rounds(mode.rounds, mode.seconds)
        elif part in {None, "writes"}:
            await runner.rounds(mode.rounds, mode.seconds)
            say("whole runs are read")
            figures["reads"] = await measure_reads(
                runner.open, runner.failures, rounds=mode.read_rounds, seconds=mode.read_seconds
            )
            others["stalls"] = await measure_stalls(runner.open, repeats=mode.read_rounds)
            others["huge"] = await _huge(runner, mode.read_rounds)
    finally:
        await runner.close()
    if part in {None, "codec"}:
        say("the codec")
        codec = measure_codec((KILOBYTE, LARGE_SIZE), rounds=mode.read_rounds, seconds=0.05)
        others["codec"] = [asdict(result) for result in codec]
    for name, work in _parts(servers, mode).items():
        figures[name] = []
        if part in {None, name}:
            say(name)
            figures[name] = await _or_none(runner.failures, name, work()) or []
    found = [goal for goal in goals(**figures) if part is None or goal.measured is not None]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": mode.callers == QUICK.callers,
        "rounds": mode.rounds,
        "seconds": mode.seconds,
        "machine": await describe(servers),
        "names": [kind.name for kind in SUBJECTS],
        "subjects": {
            name: {"database": each.database, "survives": each.survives}
            for name, each in runner.open.items()
        },
        "goals": [{**asdict(goal), "met": goal.met} for goal in found],
        "cells": {
            key: {**asdict(result.cell), "rates": result.rates, "p50_ms": result.p50_ms,
                  "p99_ms": result.p99_ms}
            for key, result in sorted(runner.results.items(), key=_order)
        },
        "reads": {key: asdict(read) for key, read in figures["reads"].items()},
        **others,
        "growth": [asdict(result) for result in figures["growth"]],
        "memory": figures["memory"],
        "listing": [asdict(result) for result in figures["listing"]],
        "claims": [asdict(result) for result in figures["claims"]],
        "failures": runner.failures,
        "_goals": found,
    }  # fmt: skip


def _parts(servers: Servers, mode: Mode) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Give what is measured in databases of its own."""
    return {
        "growth": lambda: measure_growth(
            servers, mode.growth, rounds=mode.rounds, writes=mode.growth_writes
        ),
        "memory": lambda: measure_memory(servers, mode.callers),
        "listing": lambda: measure_listing(
            servers, mode.listing, rounds=mode.listing_rounds, seconds=mode.listing_seconds
        ),
        "claims": lambda: measure_claims(
            servers, mode.claims, mode.claim_period_s, periods=mode.claim_periods
        ),
    }


def _order(item: tuple[str, Any]) -> tuple[Any, ...]:
    cell: Cell = item[1].cell
    names = [kind.name for kind in SUBJECTS]
    return (names.index(cell.subject), cell.size, cell.operation, cell.one_run, cell.tasks)


async def _huge(runner: Runner, rounds: int) -> dict[str, list[float]]:
    """Write results of 5 MB, one a round, with our stores and the bare drivers."""
    values = Values(HUGE_SIZE, distinct=1)
    subjects: tuple[type[Subject], ...] = (*OURS, RawSqlite3Full, RawAsyncpg)
    found: dict[str, list[float]] = {}
    for round_ in range(rounds + 1):
        for kind in subjects:
            if kind.name not in runner.open:
                continue
            gc.collect()
            before = time.perf_counter()
            await runner.open[kind.name].write("run-0", "huge", values.next())
            if round_ > 0:  # the first one warms up
                ms = (time.perf_counter() - before) * 1e3
                found.setdefault(kind.name, []).append(ms)
    return found


async def _or_none(failures: dict[str, str], what: str, work: Awaitable[_T]) -> _T | None:
    try:
        return await work
    except Exception as error:
        failures[what] = f"{type(error).__name__}: {error}"
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three minutes, rough figures")
    parser.add_argument("--only", help="beside ours, only subjects with this in their name")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--folder", type=Path, help="where the databases lie; a local disk")
    parser.add_argument("--part", choices=PARTS, help="only this, with --dry-run")
    parser.add_argument("--dry-run", action="store_true", help="print only, write no files")
    arguments = parser.parse_args()
    if arguments.part and not arguments.dry_run:
        parser.error("--part needs --dry-run: the page and its figures are of one whole run")
    mode = QUICK if arguments.quick else FULL
    if arguments.rounds:
        mode = Mode(**{**asdict(mode), "rounds": arguments.rounds})
    # The wheel with PostgreSQL looks for a folder that a container does not have.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    # Being told to stop ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    begun = time.monotonic()
    with Servers(arguments.folder) as servers:
        results = asyncio.run(_measure(servers, mode, arguments.only, arguments.part))
    found = results.pop("_goals")
    say(f"{time.monotonic() - begun:.0f} seconds")
    page = report.page(results, found)
    if arguments.dry_run:
        print(page)
        return
    (ROOT / "benchmarks/results").mkdir(exist_ok=True)
    (ROOT / "benchmarks/results/latest.json").write_text(json.dumps(results, indent=1) + "\n")
    plots.draw(results, ROOT / "docs/images")
    report.write_page(ROOT / "docs/performance.md", page)
    print(report.goals_table(found))


if __name__ == "__main__":
    main()
