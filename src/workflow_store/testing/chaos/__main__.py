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

from .round import Plan, Result, Round
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


def _run(plan: Plan, keep: Path | None) -> Result:
    with tempfile.TemporaryDirectory(prefix="wfs_chaos_", ignore_cleanup_errors=True) as name:
        result = asyncio.run(Round(plan, Path(name)).run())
        if keep is not None and (result.violations or result.undocumented or result.hangs):
            kept = keep / f"{plan.database}-{plan.seed}-{plan.number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(name, kept, ignore=shutil.ignore_patterns("data"))
            (kept / "violations.txt").write_text("\n\n".join(map(str, result.violations)))
        return result


def _add(total: Result, result: Result) -> None:
    total.writes += result.writes
    total.calls += result.calls
    total.seconds += result.seconds
    total.violations += result.violations
    for name in ("errors", "faults", "missed", "undocumented", "hangs"):
        getattr(total, name).update(getattr(result, name))


def _line(result: Result) -> str:
    return (
        f"{result.writes:>9,} writes {result.calls:>9,} calls {result.faults.total():>4} faults "
        f"{len(result.violations):>3} violations {result.undocumented.total():>3} undocumented "
        f"{result.hangs.total():>2} hangs {result.seconds:>6.1f} s"
    )


def _as_json(result: Result) -> dict[str, object]:
    return {
        "writes": result.writes,
        "calls": result.calls,
        "seconds": round(result.seconds, 1),
        "errors": result.errors,
        "faults": result.faults,
        "missed": result.missed,
        "violations": Counter(violation.rule for violation in result.violations),
        "undocumented": result.undocumented,
        "hangs": result.hangs,
    }


def _print_total(database: str, total: Result) -> None:
    print(f"\n{database}, in total: {_line(total)}")
    for name, counts in _as_json(total).items():
        if isinstance(counts, Counter) and counts:
            print(f"  {name}:")
            for kind, count in counts.most_common():
                print(f"    {count:>7,}  {kind}")


def main() -> int:
    arguments = _arguments()
    failed = False
    report = {}
    for database in arguments.database or [*FAULTS]:
        total = Result()
        for plan in _plans(arguments, database):
            result = _run(plan, arguments.keep)
            _add(total, result)
            print(f"{database:10} round {plan.number:>3}: {_line(result)}", flush=True)
            print(f"  {_command(plan)}", flush=True)
            for violation in result.violations[:3]:
                print(violation, flush=True)
        _print_total(database, total)
        report[database] = _as_json(total)
        failed |= bool(total.violations or total.undocumented or total.hangs)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
