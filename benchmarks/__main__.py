"""Compares workflow-store with other ways to store the steps of a run."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from . import report
from .claims import measure_claims
from .codec import measure_codec
from .growth import measure_growth
from .listing import measure_listing
from .machine import describe
from .memory import measure_memory
from .reads import measure_reads, measure_stalls
from .runner import CellResult, Runner
from .servers import Servers
from .subjects import SUBJECTS
from .timing import progress
from .values import HUNDRED_KILOBYTES, KILOBYTE, Json

PARTS = ("writes", "commits", "codec", "growth", "memory", "listing", "claims")


@dataclass(frozen=True)
class Mode:
    """How much is measured, and for how long."""

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
    results: Json = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": mode.callers == QUICK.callers,
        "rounds": mode.rounds,
        "seconds": mode.seconds,
        "machine": await describe(servers),
        "subjects": {}, "cells": {}, "reads": {}, "stalls": {}, "huge": {},
        "codec": [], "growth": [], "memory": [], "listing": [], "claims": [],
    }  # fmt: skip
    runner = Runner(servers, only="workflow-store" if part == "commits" else only)
    if part in {None, "writes", "commits"}:
        try:
            await _compare(runner, results, mode, commits_only=part == "commits")
        finally:
            await runner.close()
    if part in {None, "codec"}:
        progress("codec")
        sizes = (KILOBYTE, HUNDRED_KILOBYTES)
        codec = measure_codec(sizes, rounds=mode.read_rounds, seconds=0.05)
        results["codec"] = [asdict(result) for result in codec]
    for name, measure in _parts(servers, mode).items():
        if part not in {None, name}:
            continue
        progress(name)
        try:
            measured = await measure()
        except Exception as error:
            runner.fail(name, error)
        else:
            results[name] = [m if isinstance(m, dict) else asdict(m) for m in measured]
    return {**results, "failures": runner.failures}


async def _compare(runner: Runner, results: Json, mode: Mode, *, commits_only: bool) -> None:
    await runner.setup()
    if commits_only:
        await runner.measure_commits(mode.rounds, mode.seconds)
    else:
        await runner.measure(mode.rounds, mode.seconds)
        progress("reading whole runs")
        reads = await measure_reads(runner, rounds=mode.read_rounds, seconds=mode.read_seconds)
        results["reads"] = {key: asdict(read) for key, read in reads.items()}
        results["stalls"] = await measure_stalls(runner, repeats=mode.read_rounds)
        results["huge"] = await runner.measure_huge(mode.read_rounds)
    results["subjects"] = {
        name: {"database": subject.database, "survives": subject.survives}
        for name, subject in runner.open.items()
    }
    results["cells"] = {
        key: {**asdict(result.cell), "rates": result.rates, "p50_ms": result.p50_ms,
              "p99_ms": result.p99_ms}
        for key, result in sorted(runner.results.items(), key=_order)
    }  # fmt: skip


def _order(item: tuple[str, CellResult]) -> tuple[Any, ...]:
    cell = item[1].cell
    names = [kind.name for kind in SUBJECTS]
    return (names.index(cell.subject), cell.size, cell.operation, cell.one_run, cell.tasks)


def _parts(servers: Servers, mode: Mode) -> dict[str, Callable[[], Awaitable[list[Any]]]]:
    """Return the parts that have databases of their own."""
    return {
        "growth": partial(
            measure_growth, servers, mode.growth, rounds=mode.rounds, writes=mode.growth_writes
        ),
        "memory": partial(measure_memory, servers, mode.callers),
        "listing": partial(
            measure_listing,
            servers,
            mode.listing,
            rounds=mode.listing_rounds,
            seconds=mode.listing_seconds,
        ),
        "claims": partial(
            measure_claims, servers, mode.claims, mode.claim_period_s, periods=mode.claim_periods
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take three minutes; rough figures")
    parser.add_argument("--only", metavar="NAME",
                        help="compare only with subjects whose name contains NAME")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--folder", type=Path, help="folder for the databases, on a local disk")
    parser.add_argument("--part", choices=PARTS, help="measure only this part and print it")
    parser.add_argument("--dry-run", action="store_true", help="print the figures, write no files")
    arguments = parser.parse_args()
    mode = QUICK if arguments.quick else FULL
    if arguments.rounds:
        mode = replace(mode, rounds=arguments.rounds)
    # The wheel with PostgreSQL looks for a folder that containers do not have.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    # Raise SystemExit, so that the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    begin = time.monotonic()
    with Servers(arguments.folder) as servers:
        results = asyncio.run(_measure(servers, mode, arguments.only, arguments.part))
    progress(f"took {time.monotonic() - begin:.0f} seconds")
    # The pages and the plots have the figures of one complete run.
    if arguments.part or arguments.only or arguments.dry_run:
        print(f"{report.figures(results)}\n\n{report.goals_table(results)}")
        return
    report.LATEST.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    report.write(results)


if __name__ == "__main__":
    main()
