"""`python -m benchmarks.partitions`: partitioned tables beside ours, with the same rows in them.

They are made by the recipe of docs/scaling.md, on one server, and measured in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from sqlalchemy import make_url

from workflow_store import ResumableWorkflowStore, TaskStatus, WorkflowStepState, open_store

from .place import Place
from .values import KILOBYTE, Values

RECIPE = Path(__file__).parents[1] / "docs" / "scaling.md"
STEPS_OF_A_RUN = 100
TASKS = 64
WAITING = "wait-{}"

Measure = Callable[[ResumableWorkflowStore, int], Awaitable[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with Place() as place:
        asyncio.run(_compare(place, given.steps, given.rounds))


async def _compare(place: Place, steps: int, rounds: int) -> None:
    runs = steps // STEPS_OF_A_RUN
    plain = await place.postgres_database("plain", our_tables=True)
    took_s = await _fill(plain, runs)
    _say(f"{runs:,} runs with {steps:,} steps were copied in within {took_s:.0f} s")
    partitioned = make_url(plain).set(database="partitioned")
    await _execute(place.postgres_url(), 'CREATE DATABASE partitioned TEMPLATE "plain"')
    urls = {"plain": plain, "partitioned": partitioned.render_as_string(hide_password=False)}
    took_s = await _execute(urls["partitioned"], _recipe())
    _say(f"the recipe took {took_s:.1f} s")
    stores: dict[str, Any] = {name: open_store(url) for name, url in urls.items()}
    results: dict[str, dict[str, list[float]]] = {
        measure: {name: [] for name in stores} for measure in MEASURES
    }
    for name, url in urls.items():
        took_s = await _execute(url, "VACUUM ANALYZE")
        _say(f"{name}: VACUUM ANALYZE took {took_s:.1f} s")
        await stores[name].open()
    try:
        for round_ in range(rounds + 1):
            for measure, (work, _) in MEASURES.items():
                order = list(stores.items())
                for name, store in order if round_ % 2 else order[::-1]:
                    figure = await work(store, runs)
                    if round_ > 0:  # the first one warms up
                        results[measure][name].append(figure)
    finally:
        for store in stores.values():
            await store.close()
    _say(f"| {'':40} | plain | partitioned | ratio |")
    for measure, figures in results.items():
        one, other = median(figures["plain"]), median(figures["partitioned"])
        unit = MEASURES[measure][1]
        _say(f"| {f'{measure}, {unit}':40} | {one:,.2f} | {other:,.2f} | {other / one:.2f} |")


# -- what is measured ------------------------------------------------------------------

_VALUES = Values(KILOBYTE, distinct=4096)


async def _write_alone(store: ResumableWorkflowStore, runs: int) -> float:
    return await _median_ms(lambda: _write(store, _some_run(runs)), 300)


async def _write_together(store: ResumableWorkflowStore, runs: int) -> float:
    return await _rate(lambda: _write(store, _some_run(runs)))


async def _commit_together(store: ResumableWorkflowStore, runs: int) -> float:
    async def commit() -> None:
        await store.commit_step(_some_run(runs), _a_step(), _VALUES.next())

    return await _rate(commit)


async def _resume(store: ResumableWorkflowStore, runs: int) -> float:
    return await _median_ms(lambda: store.load_run(_some_run(runs)), 200)


async def _list(store: ResumableWorkflowStore, runs: int) -> float:
    return await _median_ms(lambda: store.list_runs(limit=50), 50)


async def _list_of_an_agent(store: ResumableWorkflowStore, runs: int) -> float:
    agent_id = f"agent-{random.randrange(50)}"  # noqa: S311 - no secret
    return await _median_ms(lambda: store.list_runs(agent_id=agent_id, limit=50), 50)


async def _find(store: ResumableWorkflowStore, runs: int) -> float:
    async def find() -> None:
        run = random.randrange(0, runs, 10)  # noqa: S311 - no secret
        if await store.find_waiting_step(WAITING.format(run)) is None:
            raise RuntimeError(f"the step of run {run} is not found")

    return await _median_ms(find, 100)


async def _claim(store: ResumableWorkflowStore, runs: int) -> float:
    async def claim() -> None:
        claim = await store.claim_run(_some_run(runs), owner="me")
        if claim is not None:
            await store.release_claim(claim)

    return await _median_ms(claim, 50)


MEASURES: dict[str, tuple[Measure, str]] = {
    "a write, alone": (_write_alone, "ms"),
    f"writes of {TASKS} tasks": (_write_together, "a second"),
    f"commits of {TASKS} tasks": (_commit_together, "a second"),
    f"a resume, about {STEPS_OF_A_RUN} steps": (_resume, "ms"),
    "a page of 50 runs": (_list, "ms"),
    "a page of 50 runs of an agent": (_list_of_an_agent, "ms"),
    "finding a waiting step": (_find, "ms"),
    "claiming and releasing": (_claim, "ms"),
}


async def _write(store: ResumableWorkflowStore, run: str) -> None:
    await store.upsert_step(run, _a_step())


def _a_step() -> WorkflowStepState:
    # One of those that are there, in nearly all cases.
    number = random.randrange(STEPS_OF_A_RUN + 1)  # noqa: S311 - no secret
    return WorkflowStepState(
        step_id=f"step-{number:04d}", status=TaskStatus.COMPLETED, result=_VALUES.next()
    )


def _some_run(runs: int) -> str:
    number = random.randrange(runs)  # noqa: S311 - no secret
    return _run_id(number if number % 10 else number + 1)  # those in tens wait


def _run_id(number: int) -> str:
    return f"run-{number:09d}"


async def _median_ms(work: Callable[[], Awaitable[object]], times: int) -> float:
    took: list[float] = []
    for _ in range(times):
        before = time.perf_counter()
        await work()
        took.append(time.perf_counter() - before)
    return median(took) * 1e3


async def _rate(work: Callable[[], Awaitable[object]], seconds: float = 0.5) -> float:
    done = 0
    before = time.perf_counter()

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() - before < seconds:
            await work()
            done += 1

    await asyncio.gather(*(repeat() for _ in range(TASKS)))
    return done / (time.perf_counter() - before)


# -- tables ----------------------------------------------------------------------------


def _recipe() -> str:
    page = RECIPE.read_text(encoding="utf-8")
    found = re.search(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise RuntimeError(f"there is no recipe in {RECIPE}")
    return found[1]


async def _fill(url: str, runs: int) -> float:
    before = time.perf_counter()
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    texts = [json.dumps(_VALUES.next()) for _ in range(512)]

    def run_rows() -> Iterator[tuple[Any, ...]]:
        for run in range(runs):
            at = begun + timedelta(seconds=run)
            ids = (_run_id(run), f"agent-{run % 50}", f"thread-{run % 500}", f"user-{run % 300}")
            yield *ids, "{}", "{}", texts[run % 512], at, at

    def step_rows() -> Iterator[tuple[Any, ...]]:
        # Side by side, as runs go on beside each other.
        for number in range(runs * STEPS_OF_A_RUN):
            step, run = divmod(number, runs)
            waits = step == STEPS_OF_A_RUN - 1 and run % 10 == 0
            status = TaskStatus.INPUT_REQUIRED if waits else TaskStatus.COMPLETED
            wait_task_id = WAITING.format(run) if waits else None
            text = f'{{"filled":"{number:012d}",{texts[number % 512][1:]}'
            yield _run_id(run), f"step-{step:04d}", status.value, text, begun, begun, wait_task_id

    connection = await asyncpg.connect(url)
    try:
        run_columns = "run_task_id agent_id thread_id user_id definition input context created_at"
        await connection.copy_records_to_table(
            "runs", records=run_rows(), columns=[*run_columns.split(), "updated_at"]
        )
        step_columns = "run_task_id step_id status result started_at completed_at wait_task_id"
        await connection.copy_records_to_table(
            "steps", records=step_rows(), columns=step_columns.split()
        )
    finally:
        await connection.close()
    return time.perf_counter() - before


async def _execute(url: str, sql: str) -> float:
    connection = await asyncpg.connect(url)
    try:
        before = time.perf_counter()
        await connection.execute(sql)
        return time.perf_counter() - before
    finally:
        await connection.close()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
