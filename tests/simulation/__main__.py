"""Runs simulations, and replays one."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from .environment import simulated
from .planted import BUGS, planted
from .simulation import Result, simulate

CHUNK = 100


def run_chunk(seeds: range, bug: str | None = None) -> tuple[int, list[Result]]:
    """Return how many calls were made, and the simulations that found something."""
    calls, failed = 0, []
    gc.disable()
    with simulated(), planted(bug):
        for seed in seeds:
            result = simulate(seed)
            calls += result.calls
            if result.violations:
                failed.append(result)
                if bug is not None:
                    break
    gc.collect()
    return calls, failed


def chunks(seeds: range) -> Iterator[range]:
    for start in range(seeds.start, seeds.stop, CHUNK):
        yield range(start, min(start + CHUNK, seeds.stop))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-2000", help="from-to, the last one excluded")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="replay one")
    parser.add_argument("--trace", action="store_true", help="print its events and its history")
    parser.add_argument("--planted", action="store_true", help="find each planted bug")
    parser.add_argument("--bug", choices=BUGS, help="plant a bug")
    return parser.parse_args()


def replay(seed: int, bug: str | None, *, trace: bool) -> int:
    with simulated(), planted(bug):
        result = simulate(seed, print if trace else None)
    if trace:
        print(*result.history, sep="\n")
    print(*(result.violations or ["no violation"]), sep="\n")
    return 1 if result.violations else 0


def find_planted(processes: int, limit: int) -> int:
    """Print the first seed that finds each planted bug; return 1 if one is not found."""
    with ProcessPoolExecutor(processes) as pool:
        found = list(pool.map(first_failure, BUGS, [limit] * len(BUGS)))
    for (name, bug), result in zip(BUGS.items(), found, strict=True):
        seed = "not found" if result is None else f"seed {result.seed}"
        print(f"{name:32} {seed:>10}  {bug.__doc__}")
    return 1 if None in found else 0


def first_failure(bug: str, limit: int) -> Result | None:
    for seeds in chunks(range(limit)):
        _, failed = run_chunk(seeds, bug)
        if failed:
            return failed[0]
    return None


def main() -> int:
    options = parsed()
    if options.planted:
        return find_planted(options.processes, 10_000)
    if options.seed is not None:
        return replay(options.seed, options.bug, trace=options.trace)
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or int(first) + 1))
    started, done, calls, failed = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(options.processes) as pool:
        for made, results in pool.map(partial(run_chunk, bug=options.bug), chunks(seeds)):
            calls += made
            done += CHUNK
            failed += len(results)
            if done % 5_000 == 0:
                print(f"{done} seeds in {time.monotonic() - started:.0f} s", flush=True)
            for result in results:
                print(f"seed {result.seed}: {result.violations[0]}")
                print(f"    python -m tests.simulation --seed {result.seed} --trace", flush=True)
    took_s = time.monotonic() - started
    print(
        f"{len(seeds)} seeds, {calls} calls, {failed} failing seeds, "
        f"{len(seeds) / took_s:.0f} seeds a second"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
