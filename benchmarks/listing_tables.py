"""Tables of runs to be listed: the same mix, however many there are."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg

from workflow_store import TaskStatus

from .subjects.raw import COLUMNS as STEP_COLUMNS

__all__ = ["RunTable", "Selection", "fill_postgresql", "fill_sqlite", "selections"]

AGENTS, WORKSPACES = 5, 8
RUNS_OF_A_USER, RUNS_OF_A_THREAD = 200, 100
RARE_RUNS = 8

_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_RUN_COLUMNS = (
    "run_task_id, agent_id, thread_id, user_id, workspace_id, definition, input, context, "
    "created_at, updated_at"
)


@dataclass(frozen=True)
class RunTable:
    """So many runs of two steps each, one a second; a run is known by its number."""

    count: int

    def run_id(self, number: int) -> str:
        # As random as a UUID, so that neighbours in time are none in an index, but known.
        return str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 1) % 2**128))

    def created_at(self, number: int) -> datetime:
        return _BEGUN + timedelta(seconds=number)

    def thread(self, number: int) -> int:
        return number % (self.count // RUNS_OF_A_THREAD)

    def user(self, number: int) -> int:
        return number % (self.count // RUNS_OF_A_USER)

    def status(self, number: int) -> TaskStatus:
        """Give the status of a run's second step; the first one is completed."""
        if number % (self.count // RARE_RUNS) == 51:
            return TaskStatus.RUNNING
        if number % 100 == 37:
            return TaskStatus.INPUT_REQUIRED
        return TaskStatus.FAILED if number % 5 == 3 else TaskStatus.COMPLETED

    def runs(self, as_time: Callable[[datetime], Any]) -> Iterator[tuple[Any, ...]]:
        definition = f'{{"name":"research","steps":["search","answer"],"text":"{"x" * 350}"}}'
        for number in range(self.count):
            time = as_time(self.created_at(number))
            workspace = number % WORKSPACES
            yield (
                self.run_id(number), f"agent-{number % AGENTS}", f"thread-{self.thread(number)}",
                f"user-{self.user(number)}", f"workspace-{workspace}" if workspace else None,
                definition, f'{{"question":{number}}}', f'{{"number":{number},"{"y" * 200}":1}}',
                time, time,
            )  # fmt: skip

    def steps(self, as_time: Callable[[datetime], Any]) -> Iterator[tuple[Any, ...]]:
        for number in range(self.count):
            run, time = self.run_id(number), as_time(self.created_at(number))
            result = f'{{"number":{number},"text":"{"z" * 80}"}}'
            yield run, "search", TaskStatus.COMPLETED.value, result, None, time, time, None
            yield run, "answer", self.status(number).value, None, None, time, None, None


@dataclass(frozen=True)
class Selection:
    """A filter, and which runs of a table it should find.

    Attributes:
        name: how the table of the report calls it.
        matches: tells whether it finds a run.
        filters: the arguments of `list_runs`.
    """

    name: str
    matches: Callable[[int], bool]
    filters: dict[str, Any] = field(default_factory=dict)

    def found(self, table: RunTable, *, skip: int, count: int) -> list[int]:
        """Give the numbers of runs that it finds, newest first."""
        return list(
            islice(filter(self.matches, range(table.count - 1, -1, -1)), skip, skip + count)
        )

    def skipped(self, table: RunTable, *, limit: int, page: int) -> int:
        """Give how many runs come before that page, or before the last full one there is."""
        place = (page - 1) * limit
        found = len(self.found(table, skip=0, count=place + limit))
        return max(found // limit - 1, 0) * limit


def selections(table: RunTable) -> list[Selection]:
    """Give no filter, and each filter alone."""
    middle = table.count // 2
    by_status = [
        Selection(
            f"step_status, {often}",
            partial(_is_in, table, status),
            {"step_status": status},
        )
        for often, status in (
            ("1 in 5 runs", TaskStatus.FAILED),
            ("1 in 100 runs", TaskStatus.INPUT_REQUIRED),
            (f"{RARE_RUNS} runs", TaskStatus.RUNNING),
        )
    ]
    return [
        Selection("none", _every),
        Selection("agent_id", lambda number: number % AGENTS == 2, {"agent_id": "agent-2"}),
        Selection("thread_id", lambda n: table.thread(n) == 3, {"thread_id": "thread-3"}),
        Selection("user_id", lambda n: table.user(n) == 3, {"user_id": "user-3"}),
        Selection("workspace_id", lambda n: n % WORKSPACES == 3, {"workspace_id": "workspace-3"}),
        *by_status,
        Selection("step_status, completed", _every, {"step_status": TaskStatus.COMPLETED}),
        Selection(
            "created_after",
            lambda number: number > middle,
            {"created_after": table.created_at(middle)},
        ),
        Selection(
            "created_before",
            lambda number: number < middle,
            {"created_before": table.created_at(middle)},
        ),
    ]


def _is_in(table: RunTable, status: TaskStatus, number: int) -> bool:
    return table.status(number) is status


def _every(_: int) -> bool:
    return True


def fill_sqlite(file: Path, table: RunTable) -> int:
    """Fill a file with our tables; give its size."""

    def as_time(time: datetime) -> str:
        return time.replace(tzinfo=None).isoformat(" ", "microseconds")

    connection = sqlite3.connect(file, isolation_level=None)
    # Only while it is filled: no waiting for the disk, and the indexes at the end.
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-500000")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    connection.execute("BEGIN")
    for name, columns, rows in (
        ("runs", _RUN_COLUMNS, table.runs(as_time)),
        ("steps", STEP_COLUMNS, table.steps(as_time)),
    ):
        places = ", ".join("?" * len(columns.split(",")))
        insert = f"INSERT INTO {name} ({columns}) VALUES ({places})"  # noqa: S608 - constants
        connection.executemany(insert, rows)
    connection.execute("COMMIT")
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file.stat().st_size


async def fill_postgresql(url: str, table: RunTable) -> int:
    """Fill a database with our tables; give its size."""
    connection = await asyncpg.connect(url)
    try:
        # The runs of the steps need not be looked up one by one.
        await connection.execute("SET session_replication_role = replica")
        for name, columns, rows in (
            ("runs", _RUN_COLUMNS, table.runs(lambda time: time)),
            ("steps", STEP_COLUMNS, table.steps(lambda time: time)),
        ):
            await connection.copy_records_to_table(name, records=rows, columns=columns.split(", "))
        # What the server would otherwise do in the background during the measurement.
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await connection.close()
