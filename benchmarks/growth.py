"""What a write costs, and what a step weighs, as the tables grow."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from workflow_store import WorkflowStepState, WorkflowStore, open_store

from .runner import say
from .servers import Servers
from .subjects.raw import COLUMNS, POSTGRESQL_RUN, SQLITE_RUN
from .values import KILOBYTE, Values

__all__ = ["GrowthResult", "measure_growth"]

STEPS_OF_A_RUN = 100


@dataclass
class GrowthResult:
    """One table of one size: a median of the latency per round, and its size on disk."""

    database: str
    steps: int
    p50_ms: list[float] = field(default_factory=list)
    bytes_per_step: float = 0.0


async def measure_growth(
    servers: Servers, sizes: tuple[int, ...], *, rounds: int, writes: int
) -> list[GrowthResult]:
    """Write one step after the other into tables of several sizes, in turns.

    Half of the writes add a step to a run, half replace one, in runs all over the table.
    """
    tables: list[tuple[GrowthResult, WorkflowStore]] = []
    for steps in sizes:
        file = await servers.sqlite_file(f"growth_{steps}", our_tables=True)
        result = GrowthResult("SQLite", steps)
        result.bytes_per_step = await asyncio.to_thread(_fill_sqlite, file, steps) / steps
        tables.append((result, open_store(f"sqlite:///{file}")))
        url = await servers.postgres_database(f"growth_{steps}", our_tables=True)
        result = GrowthResult("PostgreSQL", steps)
        result.bytes_per_step = await _fill_postgresql(url, steps) / steps
        tables.append((result, open_store(url)))
        say(f"tables of {steps:,} steps are filled")
    try:
        for _, store in tables:
            await store.open()
        values = Values(KILOBYTE, distinct=4096)
        for round_ in range(rounds + 1):
            shift = round_ * len(tables) // (rounds + 1)
            for result, store in tables[shift:] + tables[:shift]:
                p50_ms = await _p50_ms(store, result.steps, writes, values)
                if round_ > 0:  # the first one warms up
                    result.p50_ms.append(p50_ms)
    finally:
        for _, store in tables:
            await store.close()
    return [result for result, _ in tables]


async def _p50_ms(store: WorkflowStore, steps: int, writes: int, values: Values) -> float:
    gc.collect()
    took: list[float] = []
    for number in range(writes):
        run = random.randrange(steps // STEPS_OF_A_RUN)  # noqa: S311 - no secret
        step_id = _step_id(number % STEPS_OF_A_RUN) if number % 2 else f"new-{time.time_ns()}"
        before = time.perf_counter()
        await store.upsert_step(
            _run_id(run), WorkflowStepState(step_id=step_id, result=values.next())
        )
        took.append(time.perf_counter() - before)
    return median(took) * 1e3


def _run_id(run: int) -> str:
    return f"run-{run:09d}"


def _step_id(step: int) -> str:
    return f"step-{step:04d}"


def _steps(steps: int, now: Any) -> Iterator[tuple[Any, ...]]:
    values = Values(KILOBYTE, distinct=512)
    texts = [json.dumps(values.next()) for _ in range(512)]
    for number in range(steps):
        run, step = divmod(number, STEPS_OF_A_RUN)
        text = f'{{"filled":"{number:012d}",{texts[number % 512][1:]}'
        yield _run_id(run), _step_id(step), "completed", text, None, now, now, None


def _fill_sqlite(file: Path, steps: int) -> int:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")  # only while it is filled
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    connection.execute("BEGIN")
    runs = ((_run_id(run), now) for run in range(steps // STEPS_OF_A_RUN))
    connection.executemany(SQLITE_RUN, runs)
    connection.executemany(
        f"INSERT INTO steps ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant
        _steps(steps, now),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file.stat().st_size


async def _fill_postgresql(url: str, steps: int) -> int:
    connection = await asyncpg.connect(url)
    try:
        now = datetime.now(UTC)
        runs = [(_run_id(run), now) for run in range(steps // STEPS_OF_A_RUN)]
        await connection.executemany(POSTGRESQL_RUN, runs)
        await connection.copy_records_to_table(
            "steps", records=_steps(steps, now), columns=COLUMNS.split(", ")
        )
        # What the server would otherwise do in the background during the measurement.
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        return int(await connection.fetchval("SELECT pg_total_relation_size('steps')"))
    finally:
        await connection.close()
