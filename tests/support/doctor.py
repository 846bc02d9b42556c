"""Examines databases in tests, and breaks them without a store."""

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
COMMON = {"abandoned_claims", "bloat", "clock", "damaged_rows", "indexes", "oldest_run",
        "orphans", "reachable", "revision", "running_steps", "sizes", "tables",
        "version"}  # fmt: skip
SQLITE_ONLY = {"file_permissions", "file_system", "foreign_keys", "integrity", "journal_mode",
                "synchronous", "wal_size", "writable"}  # fmt: skip
POSTGRESQL_ONLY = {"compression", "connections", "durability", "encoding", "invalid_indexes",
                    "old_transactions", "pooler", "primary", "rights", "wraparound"}  # fmt: skip


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite URL, None for PostgreSQL."""
    parsed = make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


async def execute(url: str, sql: str) -> None:
    """Run SQL with the driver alone: SQLite then does not enforce foreign keys."""
    file = file_of(url)
    if file is None:
        await on_server(url, sql)
        return
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(sql)


async def findings_of(url: str, **arguments: Any) -> dict[str, Finding]:
    """Examine a database and return its findings by name."""
    findings = [finding async for finding in examine(url, **arguments)]
    by_name = {finding.check: finding for finding in findings}
    assert len(by_name) == len(findings)
    for check, verdict, found, advice in findings:
        assert isinstance(verdict, Verdict)
        assert found
        assert (advice == "") is (verdict is GOOD), check
        assert (found + advice).isprintable()
    return by_name


async def finding_of(check: str, url: str, **arguments: Any) -> Finding:
    return (await findings_of(url, **arguments))[check]


async def create_runs(store: WorkflowStore, count: int = 3) -> None:
    for number in range(count):
        await store.create_run(a_run(f"run {number}"))
        for step in ("first", "second"):
            await store.upsert_step(f"run {number}", a_step(step, status=TaskStatus.COMPLETED))


def statements_of(finding: Finding) -> str:
    """Return the SQL of an advice, with the statements separated as `on_server` expects them."""
    _, _, statements = finding.advice.partition(": ")
    return statements.replace("; ", ";\n\n")
