"""Checks of the schema and of the rows: problems are reported with their fix."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from support.doctor import (
    BAD,
    GOOD,
    WARNING,
    create_runs,
    execute,
    file_of,
    finding_of,
    findings_of,
    statements_of,
)
from support.next_version import FIRST
from workflow_store import TaskStatus, open_store
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict, data
from workflow_store.sql.models import VERSION_TABLE
from workflow_store.testing import a_run, a_step

# -- the schema --------------------------------------------------------


async def test_an_empty_database_needs_a_migration(empty_url: str) -> None:
    file = file_of(empty_url)
    if file is not None:
        sqlite3.connect(file).close()
        file.touch()
    findings = await findings_of(empty_url)
    for check in ("revision", "tables"):
        assert findings[check].verdict is BAD
        assert "workflow-store migrate" in findings[check].advice
    assert not {"indexes", "orphans", "rights"} & set(findings)
    assert findings["reachable"].verdict is GOOD


@pytest.mark.usefixtures("next_version")
async def test_an_older_database_needs_a_migration(url: str) -> None:
    await migrate.downgrade(url, FIRST)
    await execute(url, "DROP TABLE claims")  # as if a newer revision had added these
    await execute(url, "DROP INDEX ix_steps_wait_task_id")
    findings = await findings_of(url)
    for check in ("revision", "tables", "indexes"):
        assert findings[check].verdict is BAD
        assert findings[check].advice == "Run: workflow-store migrate"
    assert FIRST in findings["revision"].found
    assert "table claims" in findings["tables"].found
    assert findings["orphans"].found == "none (checked 0 steps)"
    assert "abandoned_claims" not in findings


@pytest.mark.parametrize("revision", ["9999", "zz\x1b[2J"])
async def test_a_newer_database_needs_a_newer_version(url: str, revision: str) -> None:
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")
    await execute(url, "DROP INDEX ix_steps_wait_task_id")
    findings = await findings_of(url)
    for check in ("revision", "indexes"):
        assert findings[check].verdict is BAD
        assert "newer version of workflow-store" in findings[check].advice
    assert findings["tables"].verdict is GOOD


@pytest.mark.parametrize(
    ("sql", "verdict", "part"),
    [
        ("ALTER TABLE steps DROP COLUMN error", BAD, "column steps.error"),
        ("DROP TABLE claims", BAD, "table claims"),
        ("ALTER TABLE runs ADD extra TEXT", WARNING, "column runs.'extra'"),
        ('ALTER TABLE runs ADD "a\x1bb" TEXT', WARNING, "column runs.'a\\x1bb'"),
        ("CREATE UNIQUE INDEX one ON runs (agent_id)", WARNING, "unique key 'one' of runs"),
    ],
)
async def test_altered_tables_are_reported(url: str, sql: str, verdict: Verdict, part: str) -> None:
    await execute(url, sql)
    finding = await finding_of("tables", url)
    assert finding.verdict is verdict
    assert part in finding.found
    assert "migrate" not in finding.advice


async def test_lost_keys_and_types_are_reported(url: str) -> None:
    """As by an import of the rows alone."""
    await execute(
        url,
        "ALTER TABLE steps RENAME TO old;\n\nCREATE TABLE steps AS SELECT * FROM old;\n\n"
        "DROP TABLE old",
    )
    finding = await finding_of("tables", url)
    assert finding.verdict is BAD
    for part in (
        "the primary key of steps",
        "the unique key of steps (run_task_id, step_id)",
        "the foreign key of steps (run_task_id)",
        "the NOT NULL of steps.status",
    ):
        assert part in finding.found


async def test_tables_and_indexes_of_a_host_are_ignored(url: str) -> None:
    await execute(url, "CREATE TABLE theirs (id INT UNIQUE, name TEXT)")
    await execute(url, "CREATE UNIQUE INDEX theirs_name ON theirs (name)")
    await execute(url, "CREATE INDEX theirs_too ON runs (lower(agent_id))")
    findings = await findings_of(url)
    assert findings["tables"].verdict is GOOD
    assert findings["indexes"].verdict is GOOD


async def test_other_tables_under_our_names_are_reported_without_an_error(empty_url: str) -> None:
    await execute(empty_url, "CREATE TABLE runs (id INT)")
    await execute(empty_url, "CREATE TABLE steps (id INT)")
    findings = await findings_of(empty_url)
    assert findings["tables"].verdict is BAD
    for check in ("oldest_run", "orphans"):
        assert findings[check].verdict is WARNING
        assert findings[check].found.startswith("not checked")


async def test_missing_and_altered_indexes_are_reported_with_the_sql_that_fixes_them(
    url: str,
) -> None:
    await execute(
        url, "DROP INDEX ix_steps_wait_task_id;\n\nDROP INDEX ix_steps_status_run_task_id"
    )
    await execute(url, "DROP INDEX ix_runs_agent_id_created_at_run_task_id")
    await execute(url, "CREATE INDEX ix_runs_agent_id_created_at_run_task_id ON runs (agent_id)")
    findings = await findings_of(url)
    finding = findings["indexes"]
    assert finding.verdict is BAD
    assert "ix_steps_wait_task_id" in finding.found
    assert "ix_runs_agent_id_created_at_run_task_id" in finding.found
    assert "ix_runs_user_id" not in finding.found
    assert findings["tables"].verdict is GOOD
    beside_writers = "INDEX " if file_of(url) else "INDEX CONCURRENTLY "
    assert finding.advice.count(f"CREATE {beside_writers}") == 3
    assert finding.advice.count(f"DROP {beside_writers}") == 3
    await execute(url, statements_of(finding))
    assert (await finding_of("indexes", url)).verdict is GOOD


# -- the rows ----------------------------------------------------------


async def lose_run(url: str) -> None:
    off = "" if file_of(url) else "SET session_replication_role = replica;\n\n"
    await execute(url, f"{off}DELETE FROM runs WHERE run_task_id = 'run 0'")


async def test_orphans_are_reported_with_the_sql_that_deletes_them(url: str) -> None:
    async with open_store(url) as store:
        await create_runs(store)
        await store.claim_run("run 0", owner="me")
        await lose_run(url)
        finding = await finding_of("orphans", url)
        assert finding.verdict is BAD
        assert finding.found.startswith(
            "2 steps and 1 claim without a run (checked 6 steps and 1 claim)"
        )
        await execute(url, statements_of(finding))
        assert (await finding_of("orphans", url)).verdict is GOOD
        assert len(await store.list_steps("run 1")) == 2


async def test_only_a_sample_of_many_rows_is_checked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "COUNTED", 4)
    async with open_store(url) as store:
        await create_runs(store, 5)
    findings = await findings_of(url)
    assert findings["oldest_run"].found.startswith("over 4 runs, ")
    assert findings["orphans"].found == "none (checked 4 of over 4 steps and 0 claims)"
    await lose_run(url)
    finding = await finding_of("orphans", url)
    assert finding.found.startswith("2 steps without a run (checked 4 of over 4 steps and 0 ")


async def test_an_expired_lease_is_reported_until_the_run_is_taken_over(url: str) -> None:
    async with open_store(url) as store:
        await create_runs(store)
        await store.claim_run("run 0", owner="live", lease_s=3600)
        assert (await finding_of("abandoned_claims", url)).verdict is GOOD
        for number in (1, 2):
            await store.claim_run(f"run {number}", owner="dead", lease_s=0.01)
        await asyncio.sleep(0.05)
        finding = await finding_of("abandoned_claims", url)
        assert finding.verdict is WARNING
        assert finding.found.startswith("2 leases not taken over after expiring, the first ")
        assert "claim_abandoned_runs" in finding.advice
        assert len(await store.claim_abandoned_runs(owner="live")) == 2
        assert (await finding_of("abandoned_claims", url)).verdict is GOOD


async def test_a_long_running_step_is_a_warning_unless_its_run_is_claimed(url: str) -> None:
    began = datetime.now(UTC) - timedelta(hours=3)
    async with open_store(url) as store:
        await create_runs(store)
        for number in (0, 1):
            step = a_step("third", status=TaskStatus.RUNNING, started_at=began)
            await store.upsert_step(f"run {number}", step)
        running = a_step("fourth", status=TaskStatus.RUNNING, started_at=datetime.now(UTC))
        await store.upsert_step("run 0", running)
        await store.claim_run("run 0", owner="live", lease_s=3600)
        finding = await finding_of("running_steps", url)
        assert finding.verdict is WARNING
        assert finding.found == (
            "2 steps in status running for over 1 h, including 1 step not covered by a claim"
        )
        assert "--step-status running" in finding.advice
        assert (await finding_of("running_steps", url, running_for_s=4 * 3600)).verdict is GOOD
        await store.claim_run("run 1", owner="live", lease_s=3600)
        finding = await finding_of("running_steps", url)
        assert finding.verdict is GOOD
        assert finding.found == "2 steps in status running for over 1 h, all covered by claims"


async def test_old_runs_are_a_warning(url: str) -> None:
    assert (await finding_of("oldest_run", url)).found == "no runs"
    async with open_store(url) as store:
        await store.create_run(a_run("young", created_at=datetime.now(UTC) - timedelta(days=9)))
        finding = await finding_of("oldest_run", url)
        assert finding.verdict is GOOD
        assert finding.found == "1 run, the oldest created 9 d ago"
        await store.create_run(a_run("old", created_at=datetime(2001, 1, 1, tzinfo=UTC)))
    finding = await finding_of("oldest_run", url)
    assert finding.verdict is WARNING
    assert finding.advice.endswith("workflow-store runs purge --created-before 365d")
