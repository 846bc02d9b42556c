"""Lets a database fail while processes use it, and checks that every answer was true."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shlex
import shutil
import sys
import tempfile
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..history import Violation
from .results import Result
from .round import Plan, Round, violations_in
from .scenarios import SCENARIOS
from .schedule import FAULTS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    parser.add_argument("--database", choices=[*FAULTS], action="append", help="default: both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--writes", type=int, default=0, help="acknowledged writes, all rounds")
    parser.add_argument("--faults", type=int, default=0, help="faults, all rounds")
    parser.add_argument("--seconds", type=float, help="instead: all rounds together")
    parser.add_argument("--rounds", type=int, help="default: one for each 50 faults or 45 s")
    parser.add_argument("--round", type=int, help="only the round of this number")
    parser.add_argument("--only", help="only faults whose name contains this")
    parser.add_argument("--workers", type=int, default=3, help="processes")
    parser.add_argument("--tasks", type=int, default=64, help="clients in each process")
    parser.add_argument("--scenario", choices=[*SCENARIOS], help="instead: one scenario")
    parser.add_argument("--python", default=sys.executable, help="of the processes")
    parser.add_argument("--uvloop", action="store_true", help="processes use uvloop")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--keep", type=Path, help="keep the histories of rounds with violations")
    return parser.parse_args()


def _plans(arguments: argparse.Namespace, database: str) -> list[Plan]:
    seconds = arguments.seconds
    if seconds is None and not (arguments.writes or arguments.faults):
        seconds = 90.0
    rounds = arguments.rounds or max(
        1, math.ceil(arguments.faults / 50), round((seconds or 0) / 45)
    )
    plan = Plan(
        database, arguments.seed, 0,
        writes=math.ceil(arguments.writes / rounds),
        faults=math.ceil(arguments.faults / rounds) if seconds is None else sys.maxsize,
        seconds=math.inf if seconds is None else seconds / rounds,
        workers=arguments.workers, tasks=arguments.tasks, only=arguments.only,
        uvloop=arguments.uvloop, python=arguments.python,
    )  # fmt: skip
    chosen = range(rounds) if arguments.round is None else [arguments.round]
    return [replace(plan, number=number) for number in chosen]


def _command(plan: Plan) -> str:
    words = ["--database", plan.database, "--seed", plan.seed, "--round", plan.number]
    words += ["--rounds", plan.number + 1]
    if plan.seconds == math.inf:
        words += ["--writes", plan.writes * (plan.number + 1)]
        words += ["--faults", plan.faults * (plan.number + 1)]
    else:
        words += ["--seconds", plan.seconds * (plan.number + 1)]
    if plan.only is not None:
        words += ["--only", plan.only]
    words += ["--workers", plan.workers, "--tasks", plan.tasks]
    return f"make chaos ARGS={shlex.quote(shlex.join(map(str, words)))}"


def _print_total(database: str, total: Result) -> None:
    print(f"\n{database}, in total: {total}{' (interrupted)' if total.interrupted else ''}")
    for name, counts in total.as_json().items():
        if isinstance(counts, Counter) and counts:
            print(f"  {name}:")
            for kind, count in counts.most_common():
                print(f"    {count:>7,}  {kind}")


def _report(
    arguments: argparse.Namespace, plan: Plan, command: str, result: Result, folder: Path
) -> None:
    name = plan.database if plan.database in SCENARIOS else f"{plan.database} round {plan.number}"
    print(f"{name}: {result}\n  {command}")
    for violation in result.violations[:3]:
        print(violation)
    sys.stdout.flush()
    if arguments.keep is not None and result.failed:
        kept = arguments.keep / f"{plan.database}-{plan.seed}-{plan.number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("data", "*.pipe"))
        (kept / "violations.txt").write_text("\n\n".join(map(str, result.violations)))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="wfs_chaos_", ignore_cleanup_errors=True)


def _run_scenario(arguments: argparse.Namespace) -> Result:
    name = arguments.scenario
    scenario = SCENARIOS[name]
    plan = Plan(
        name, arguments.seed, 0, 0, 0, math.inf, scenario.workers, arguments.tasks,
        ending=scenario.ending, uvloop=arguments.uvloop, python=arguments.python,
    )  # fmt: skip
    words = f"--scenario {name} --seed {arguments.seed} --tasks {arguments.tasks}"
    with _folder() as folder:
        round_ = Round(plan, Path(folder), scenario.environment)
        result = asyncio.run(round_.run(scenario.drive, scenario.review))
        result.violations += violations_in(Path(folder))
        _report(arguments, plan, f"make chaos ARGS='{words}'", result, Path(folder))
    return result


def _run_rounds(arguments: argparse.Namespace, database: str) -> Result:
    """Run the rounds; another process checks the history of each while the next one runs."""
    total = Result()
    unchecked: deque[tuple[Plan, Result, Any, Future[list[Violation]]]] = deque()

    def finish() -> None:
        plan, result, folder, violations = unchecked.popleft()
        result.violations = violations.result()
        total.add(result)
        _report(arguments, plan, _command(plan), result, Path(folder.name))
        folder.cleanup()

    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            for plan in _plans(arguments, database):
                folder = _folder()
                result = asyncio.run(Round(plan, Path(folder.name)).run())
                violations = pool.submit(violations_in, Path(folder.name))
                unchecked.append((plan, result, folder, violations))
                while unchecked and unchecked[0][-1].done():
                    finish()
        except (KeyboardInterrupt, asyncio.CancelledError):
            total.interrupted = True
        while unchecked:
            finish()
    return total


def main() -> int:
    arguments = _arguments()
    if arguments.scenario is not None:
        totals = {arguments.scenario: _run_scenario(arguments)}
    else:
        databases = arguments.database or [*FAULTS]
        totals = {database: _run_rounds(arguments, database) for database in databases}
    for name, total in totals.items():
        _print_total(name, total)
    if arguments.json is not None:
        report = {name: total.as_json() for name, total in totals.items()}
        arguments.json.write_text(json.dumps(report, indent=2))
    return int(any(total.failed or total.interrupted for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
