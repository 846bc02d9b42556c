"""The latency of a write, and the size of a step on disk, as the tables grow."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from workflow_store import WorkflowStepState, WorkflowStore, open_store

from .fill import Table, fill, sqlite_path, time_encoder
from .servers import DATABASES, Servers
from .subjects.raw import RUN_COLUMNS, STEP_COLUMNS
from .timing import median_ms, progress, turns
from .values import KILOBYTE, Values

__all__ = ["GrowthResult", "measure_growth"]

STEPS_PER_RUN = 100


@dataclass
class GrowthResult:
    """A table of one size: the median latency of each round, and its size on disk."""

    database: str
    steps: int
    p50_ms: list[float] = field(default_factory=list)
    bytes_per_step: float = 0.0


async def measure_growth(
    servers: Servers, sizes: tuple[int, ...], *, rounds: int, writes: int
) -> list[GrowthResult]:
    """Write steps one after the other into tables of several sizes.

    Half of the writes add a step, half replace one, in random runs.
    """
    tables: list[tuple[GrowthResult, WorkflowStore]] = []
    for steps in sizes:
        for database in DATABASES:
            url = await servers.url(database, f"growth_{steps}")
            now = time_encoder(url)(datetime.now(UTC))
            await fill(
                url,
                [
                    Table("runs", RUN_COLUMNS, _runs(steps // STEPS_PER_RUN, now)),
                    Table("steps", STEP_COLUMNS, _steps(steps, now)),
                ],
            )
            result = GrowthResult(database, steps, bytes_per_step=await _size(url) / steps)
            tables.append((result, open_store(url)))
        progress(f"filled tables of {steps:,} steps")
    try:
        for _, store in tables:
            await store.open()
        values = Values(KILOBYTE, distinct=4096)
        for round_, (result, store) in turns(tables, rounds):
            ms = await median_ms(_writer(store, result.steps, values), at_least=writes)
            if round_:
                result.p50_ms.append(ms)
    finally:
        for _, store in tables:
            await store.close()
    return [result for result, _ in tables]


def _writer(store: WorkflowStore, steps: int, values: Values) -> Callable[[], Any]:
    numbers = itertools.count()

    async def write() -> None:
        run_id = _run_id(random.randrange(steps // STEPS_PER_RUN))  # noqa: S311 - no secret
        number = next(numbers)
        step_id = _step_id(number % STEPS_PER_RUN) if number % 2 else f"new-{time.time_ns()}"
        await store.upsert_step(run_id, WorkflowStepState(step_id=step_id, result=values.next()))

    return write


def _run_id(number: int) -> str:
    return f"run-{number:09d}"


def _step_id(number: int) -> str:
    return f"step-{number:04d}"


def _runs(count: int, now: Any) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        yield _run_id(number), "agent", "thread", "user", None, "{}", "{}", "{}", now, now


def _steps(count: int, now: Any) -> Iterator[tuple[Any, ...]]:
    values = Values(KILOBYTE, distinct=512)
    texts = [json.dumps(values.next()) for _ in range(512)]
    for number in range(count):
        run, step = divmod(number, STEPS_PER_RUN)
        text = f'{{"filled":"{number:012d}",{texts[number % 512][1:]}'
        yield _run_id(run), _step_id(step), "completed", text, None, now, now, None


async def _size(url: str) -> int:
    """Return the bytes of a SQLite file, or of PostgreSQL's steps with their indexes."""
    if path := sqlite_path(url):
        return path.stat().st_size
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT pg_total_relation_size('steps')"))
    finally:
        await connection.close()
