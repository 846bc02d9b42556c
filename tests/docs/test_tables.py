"""docs/tables.md: its columns and its queries, on SQLite and PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from support import ROOT
from workflow_store import TaskStatus, open_store
from workflow_store.testing import a_run, a_step

PAGE = (ROOT / "docs" / "tables.md").read_text("utf-8")
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LAST_NIGHT = MIDNIGHT - timedelta(hours=1)
LONG_AGO = MIDNIGHT - timedelta(days=30)

EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Runs by status": [
        ("completed", 1), ("failed", 1), ("no steps", 1), ("open", 1), ("waiting", 1),
    ],
    "The longest steps": [
        ("completed", "fetch", 90.5), ("failed", "old", 2.0), ("failed", "recent", 1.0),
    ],
    "The failed steps of last night": [("agent", "failed", "recent", LAST_NIGHT, 'no "answer"')],
    "The steps that wait": [("user", "waiting", "approve", "approval-7", LONG_AGO)],
    "The largest contexts": [
        ("completed", 15), ("failed", 2), ("no steps", 2), ("open", 2), ("waiting", 2),
    ],
    "A value inside the results": [("completed", "3")],
    "Who drives which run": [("replica-1", "open", True)],
}  # fmt: skip


async def fill(url: str) -> None:
    """Store a run of each status."""
    ended_s = {"old": 2, "recent": 1}
    async with open_store(url) as store:
        for run_task_id in ("completed", "failed", "no steps", "open", "waiting"):
            context = {"ä": "1234567"} if run_task_id == "completed" else {}
            await store.create_run(
                a_run(run_task_id, agent_id="agent", user_id="user", context=context)
            )
        await store.upsert_step(
            "completed",
            a_step(
                "fetch",
                status=TaskStatus.COMPLETED,
                result={"pages": 3},
                started_at=LONG_AGO,
                completed_at=LONG_AGO + timedelta(seconds=90.5),
            ),
        )
        for step_id, completed_at in (("old", LONG_AGO), ("recent", LAST_NIGHT)):
            await store.upsert_step(
                "failed",
                a_step(
                    step_id,
                    status=TaskStatus.FAILED,
                    error='no "answer"',
                    started_at=completed_at - timedelta(seconds=ended_s[step_id]),
                    completed_at=completed_at,
                ),
            )
        await store.upsert_step("open", a_step("first", status=TaskStatus.RUNNING))
        await store.claim_run("open", owner="replica-1", lease_s=3600)
        await store.upsert_step(
            "waiting",
            a_step(
                "approve",
                status=TaskStatus.INPUT_REQUIRED,
                wait_task_id="approval-7",
                started_at=LONG_AGO,
            ),
        )


def queries(database: str) -> dict[str, str]:
    """Return the page's query for a database under each heading."""
    by_heading = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        for names, query in re.findall(
            r"^```sql\n-- ([^\n]+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
        ):
            if database in names:
                by_heading[section.partition("\n")[0]] = query
    return by_heading


def columns(table: str) -> list[tuple[str, str, str, bool]]:
    """Return name, SQLite type, PostgreSQL type and nullability of a table's columns."""
    section = PAGE.partition(f"\n### {table}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| (.*?) ?\|$", section, re.MULTILINE)
    return [(name, lite, postgres, "∅" in notes) for name, lite, postgres, notes in rows]


def test_both_databases_have_a_query_under_each_heading() -> None:
    assert list(queries("SQLite")) == list(queries("PostgreSQL")) == list(EXPECTED)


async def test_the_queries_on_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    await fill(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        for heading, query in queries("SQLite").items():
            rows = connection.execute(query).fetchall()
            expected = [tuple(map(_as_sqlite_text, row)) for row in EXPECTED[heading]]
            assert rows == expected, heading


def _as_sqlite_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    # https://www.sqlite.org/json1.html#jptr: ->> returns a number as a number.
    return 3 if value == "3" else value


async def test_the_queries_on_postgresql(postgres_url: str) -> None:
    await fill(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    try:
        for heading, query in queries("PostgreSQL").items():
            rows = [tuple(row) for row in await connection.fetch(query)]
            assert rows == EXPECTED[heading], heading
    finally:
        await connection.close()


@pytest.mark.parametrize("table", ["runs", "steps", "claims"])
async def test_the_columns(table: str, tmp_path: Path, postgres_url: str) -> None:
    """Name, order, type and nullability of each column are as the page lists them."""
    file = tmp_path / "runs.db"
    async with open_store(f"sqlite:///{file}"):
        with closing(sqlite3.connect(file)) as lite:
            info = lite.execute(f"PRAGMA table_info({table})").fetchall()
    connection = await asyncpg.connect(postgres_url)
    try:
        types = {
            row["column_name"]: (row["udt_name"], row["is_nullable"] == "YES")
            for row in await connection.fetch(
                "SELECT column_name, udt_name, is_nullable FROM information_schema.columns "
                "WHERE table_name = $1 AND table_schema = current_schema() "
                "ORDER BY ordinal_position",
                table,
            )
        }
    finally:
        await connection.close()
    listed = columns(table)
    assert [(name, lite, null) for name, lite, _, null in listed] == [
        (name, type_, not not_null) for _, name, type_, not_null, *_ in info
    ]
    names = {"int8": "bigint"}
    assert [(name, postgres, null) for name, _, postgres, null in listed] == [
        (name, names.get(type_, type_), null) for name, (type_, null) in types.items()
    ]
