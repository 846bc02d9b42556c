"""Examining databases in tests, and breaking them past the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from support.databases import on_server
from workflow_store import TaskStatus, WorkflowStore
from workflow_store.sql.doctor import Finding, Verdict, examine
from workflow_store.testing import a_run, a_step

GOOD, WARNING, BAD = Verdict.GOOD, Verdict.WARNING, Verdict.BAD
ODD_SCHEMA = "We ird 100%"
BOTH = {"abandoned_claims", "bloat", "clock", "indexes", "oldest_run", "orphans", "reachable",
        "revision", "running_steps", "sizes", "tables", "version"}  # fmt: skip
SQLITE_ALONE = {"file_system", "foreign_keys", "integrity", "journal_mode", "synchronous",
                "wal_size", "writable"}  # fmt: skip
POSTGRESQL_ALONE = {"compression", "connections", "durability", "invalid_indexes",
                    "old_transactions", "pooler", "primary", "rights", "wraparound"}  # fmt: skip


def file_of(url: str) -> Path | None:
    """Give the file of a SQLite URL, None for PostgreSQL."""
    parsed = make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


async def execute(url: str, sql: str) -> None:
    """Run SQL with nothing but the driver; on SQLite, foreign keys are not enforced so."""
    file = file_of(url)
    if file is None:
        await on_server(url, sql)
        return
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(sql)


async def found_in(url: str, **arguments: Any) -> dict[str, Finding]:
    """Examine a database; give the findings by name."""
    findings = [finding async for finding in examine(url, **arguments)]
    named = {finding.check: finding for finding in findings}
    assert len(named) == len(findings)
    for check, verdict, found, advice in findings:
        assert isinstance(verdict, Verdict)
        assert found
        assert (advice == "") is (verdict is GOOD), check
        assert (found + advice).isprintable()
    return named


async def the(check: str, url: str, **arguments: Any) -> Finding:
    return (await found_in(url, **arguments))[check]


async def some_runs(store: WorkflowStore, count: int = 3) -> None:
    for number in range(count):
        await store.create_run(a_run(f"run {number}"))
        for step in ("first", "second"):
            await store.upsert_step(f"run {number}", a_step(step, status=TaskStatus.COMPLETED))


def one_by_one(finding: Finding) -> str:
    """Give the statements of an advice, as a person runs them."""
    _, _, statements = finding.advice.partition(": ")
    return statements.replace("; ", ";\n\n")
