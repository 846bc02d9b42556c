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
from collections import Counter
from dataclasses import replace
from pathlib import Path

from .results import Result
from .round import Plan, Round
from .scenarios import SCENARIOS, Scenario
from .schedule import FAULTS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    parser.add_argument("--database", choices=[*FAULTS], action="append", help="default: both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--writes", type=int, default=0, help="acknowledged writes, all rounds")
    parser.add_argument("--faults", type=int, default=0, help="faults, all rounds")
    parser.add_argument("--seconds", type=float, help="instead: all rounds together")
    parser.add_argument("--rounds", type=int, help="default: one for each 12 faults or 30 s")
    parser.add_argument("--round", type=int, help="only the round of this number")
    parser.add_argument("--only", help="only faults whose name contains this")
    parser.add_argument("--workers", type=int, default=3, help="processes")
    parser.add_argument("--tasks", type=int, default=16, help="clients in each process")
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
        1, math.ceil(arguments.faults / 12), round((seconds or 0) / 30)
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


def _run(plan: Plan, keep: Path | None, scenario: Scenario | None = None) -> Result:
    with tempfile.TemporaryDirectory(prefix="wfs_chaos_", ignore_cleanup_errors=True) as name:
        if scenario is None:
            result = asyncio.run(Round(plan, Path(name)).run())
        else:
            round_ = Round(plan, Path(name), scenario.environment)
            result = asyncio.run(round_.run(scenario.drive, scenario.review))
        if keep is not None and result.failed:
            kept = keep / f"{plan.database}-{plan.seed}-{plan.number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(name, kept, ignore=shutil.ignore_patterns("data", "*.pipe"))
            (kept / "violations.txt").write_text("\n\n".join(map(str, result.violations)))
        return result


def _print_total(database: str, total: Result) -> None:
    print(f"\n{database}, in total: {total}")
    for name, counts in total.as_json().items():
        if isinstance(counts, Counter) and counts:
            print(f"  {name}:")
            for kind, count in counts.most_common():
                print(f"    {count:>7,}  {kind}")


def _print_round(name: str, command: str, result: Result) -> None:
    print(f"{name}: {result}\n  {command}")
    for violation in result.violations[:3]:
        print(violation)
    sys.stdout.flush()


def _run_scenario(arguments: argparse.Namespace) -> Result:
    name = arguments.scenario
    scenario = SCENARIOS[name]
    plan = Plan(
        name, arguments.seed, 0, 0, 0, math.inf, scenario.workers, arguments.tasks,
        ending=scenario.ending, uvloop=arguments.uvloop, python=arguments.python,
    )  # fmt: skip
    result = _run(plan, arguments.keep, scenario)
    words = f"--scenario {name} --seed {arguments.seed} --tasks {arguments.tasks}"
    _print_round(name, f"make chaos ARGS='{words}'", result)
    return result


def _run_rounds(arguments: argparse.Namespace, database: str) -> Result:
    total = Result()
    for plan in _plans(arguments, database):
        result = _run(plan, arguments.keep)
        total.add(result)
        _print_round(f"{database} round {plan.number}", _command(plan), result)
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
    return int(any(total.failed for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
