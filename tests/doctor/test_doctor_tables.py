"""Examining the schema and the rows of either database: what is broken is told with its mending."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from support.doctor import (
    BAD,
    GOOD,
    WARNING,
    execute,
    file_of,
    found_in,
    one_by_one,
    some_runs,
    the,
)
from support.next_version import FIRST
from workflow_store import TaskStatus, open_store
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict
from workflow_store.sql.doctor import schema as health
from workflow_store.sql.models import VERSION_TABLE
from workflow_store.testing import a_run, a_step

# -- both databases: the schema --------------------------------------------------------


async def test_an_empty_database_is_to_be_migrated(empty_url: str) -> None:
    file = file_of(empty_url)
    if file is not None:
        sqlite3.connect(file).close()
        file.touch()
    found = await found_in(empty_url)
    for check in ("revision", "tables"):
        assert found[check].verdict is BAD
        assert "workflow-store migrate" in found[check].advice
    assert not {"indexes", "orphans", "rights"} & set(found)
    assert found["reachable"].verdict is GOOD


@pytest.mark.usefixtures("next_version")
async def test_an_older_database_is_to_be_migrated(url: str) -> None:
    await migrate.downgrade(url, FIRST)
    await execute(url, "DROP TABLE claims")  # as if a newer revision had added these
    await execute(url, "DROP INDEX ix_steps_wait_task_id")
    found = await found_in(url)
    for check in ("revision", "tables", "indexes"):
        assert found[check].verdict is BAD
        assert found[check].advice == "Run: workflow-store migrate"
    assert FIRST in found["revision"].found
    assert "table claims" in found["tables"].found
    assert found["orphans"].found == "none among all 0 steps"
    assert "abandoned_claims" not in found


@pytest.mark.parametrize("revision", ["9999", "zz\x1b[2J"])
async def test_a_newer_database_needs_a_newer_version(url: str, revision: str) -> None:
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")
    await execute(url, "DROP INDEX ix_steps_wait_task_id")
    found = await found_in(url)
    for check in ("revision", "indexes"):
        assert found[check].verdict is BAD
        assert "newer version of workflow-store" in found[check].advice
    assert found["tables"].verdict is GOOD


@pytest.mark.parametrize(
    ("sql", "verdict", "told"),
    [
        ("ALTER TABLE steps DROP COLUMN error", BAD, "column steps.error"),
        ("DROP TABLE claims", BAD, "table claims"),
        ("ALTER TABLE runs ADD extra TEXT", WARNING, "column runs.'extra'"),
        ('ALTER TABLE runs ADD "a\x1bb" TEXT', WARNING, "column runs.'a\\x1bb'"),
        ("CREATE UNIQUE INDEX one ON runs (agent_id)", WARNING, "unique key 'one' of runs"),
    ],
)
async def test_altered_tables_are_told(url: str, sql: str, verdict: Verdict, told: str) -> None:
    await execute(url, sql)
    finding = await the("tables", url)
    assert finding.verdict is verdict
    assert told in finding.found
    assert "migrate" not in finding.advice


async def test_keys_and_types_that_were_lost_are_told(url: str) -> None:
    """As by an import that brought the rows alone."""
    await execute(
        url,
        "ALTER TABLE steps RENAME TO old;\n\nCREATE TABLE steps AS SELECT * FROM old;\n\n"
        "DROP TABLE old",
    )
    finding = await the("tables", url)
    assert finding.verdict is BAD
    for told in (
        "the primary key of steps",
        "the unique key of steps (run_task_id, step_id)",
        "the foreign key of steps (run_task_id)",
        "the NOT NULL of steps.status",
    ):
        assert told in finding.found


async def test_tables_of_others_are_none_of_ours(url: str) -> None:
    await execute(url, "CREATE TABLE theirs (id INT UNIQUE, name TEXT)")
    await execute(url, "CREATE UNIQUE INDEX theirs_name ON theirs (name)")
    await execute(url, "CREATE INDEX theirs_too ON runs (lower(agent_id))")
    found = await found_in(url)
    assert found["tables"].verdict is GOOD
    assert found["indexes"].verdict is GOOD


async def test_tables_that_are_none_of_ours_are_told_and_nothing_raises(empty_url: str) -> None:
    await execute(empty_url, "CREATE TABLE runs (id INT)")
    await execute(empty_url, "CREATE TABLE steps (id INT)")
    found = await found_in(empty_url)
    assert found["tables"].verdict is BAD
    for check in ("oldest_run", "orphans"):
        assert found[check].verdict is WARNING
        assert found[check].found.startswith("not told")


async def test_missing_and_altered_indexes_are_told_with_what_makes_them(url: str) -> None:
    await execute(
        url, "DROP INDEX ix_steps_wait_task_id;\n\nDROP INDEX ix_steps_status_run_task_id"
    )
    await execute(url, "DROP INDEX ix_runs_agent_id_created_at_run_task_id")
    await execute(url, "CREATE INDEX ix_runs_agent_id_created_at_run_task_id ON runs (agent_id)")
    found = await found_in(url)
    finding = found["indexes"]
    assert finding.verdict is BAD
    assert "ix_steps_wait_task_id" in finding.found
    assert "ix_runs_agent_id_created_at_run_task_id" in finding.found
    assert "ix_runs_user_id" not in finding.found
    assert found["tables"].verdict is GOOD
    beside_writers = "CREATE INDEX " if file_of(url) else "CREATE INDEX CONCURRENTLY "
    assert finding.advice.count(beside_writers) == 3
    await execute(url, one_by_one(finding))
    assert (await the("indexes", url)).verdict is GOOD


# -- both databases: the rows ----------------------------------------------------------


async def lose_a_run(url: str) -> None:
    off = "" if file_of(url) else "SET session_replication_role = replica;\n\n"
    await execute(url, f"{off}DELETE FROM runs WHERE run_task_id = 'run 0'")


async def test_orphans_are_told_with_what_deletes_them(url: str) -> None:
    async with open_store(url) as store:
        await some_runs(store)
        await store.claim_run("run 0", owner="me")
        await lose_a_run(url)
        finding = await the("orphans", url)
        assert finding.verdict is BAD
        assert finding.found.startswith(
            "2 steps and 1 claims without a run, among all 6 steps and all 1 claims"
        )
        await execute(url, one_by_one(finding))
        assert (await the("orphans", url)).verdict is GOOD
        assert len(await store.list_steps("run 1")) == 2


async def test_of_many_rows_only_some_are_looked_at(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "COUNTED", 4)
    async with open_store(url) as store:
        await some_runs(store, 5)
    found = await found_in(url)
    assert found["oldest_run"].found.startswith("over 4 runs, ")
    assert found["orphans"].found == "none among 4 of the over 4 steps and all 0 claims"
    await lose_a_run(url)
    finding = await the("orphans", url)
    assert finding.found.startswith("2 steps without a run, among 4 of the over 4 steps")


async def test_a_lease_that_ran_out_is_told_until_somebody_takes_the_run_over(url: str) -> None:
    async with open_store(url) as store:
        await some_runs(store)
        await store.claim_run("run 0", owner="live")
        assert (await the("abandoned_claims", url)).verdict is GOOD
        for number in (1, 2):
            await store.claim_run(f"run {number}", owner="dead", lease_s=0.01)
        await asyncio.sleep(0.05)
        finding = await the("abandoned_claims", url)
        assert finding.verdict is WARNING
        assert finding.found.startswith("2 leases ran out and nobody took over, the first ")
        assert "claim_abandoned_runs" in finding.advice
        assert len(await store.claim_abandoned_runs(owner="live")) == 2
        assert (await the("abandoned_claims", url)).verdict is GOOD


async def test_a_step_that_runs_for_long_is_told_where_nobody_claims_its_run(url: str) -> None:
    began = datetime.now(UTC) - timedelta(hours=3)
    async with open_store(url) as store:
        await some_runs(store)
        for number in (0, 1):
            step = a_step("third", status=TaskStatus.RUNNING, started_at=began)
            await store.upsert_step(f"run {number}", step)
        running = a_step("fourth", status=TaskStatus.RUNNING, started_at=datetime.now(UTC))
        await store.upsert_step("run 0", running)
        await store.claim_run("run 0", owner="live")
        finding = await the("running_steps", url)
        assert finding.verdict is WARNING
        assert finding.found == (
            "2 steps in running for over 60 minutes, 1 in runs that nobody holds a claim on"
        )
        assert "--step-status running" in finding.advice
        assert (await the("running_steps", url, running_for_s=4 * 3600)).verdict is GOOD
        await store.claim_run("run 1", owner="live")
        finding = await the("running_steps", url)
        assert finding.verdict is GOOD
        assert finding.found == "2 steps in running for over 60 minutes, in runs that are claimed"


async def test_runs_of_long_ago_are_to_be_purged(url: str) -> None:
    assert (await the("oldest_run", url)).found == "there are no runs"
    async with open_store(url) as store:
        await store.create_run(a_run("young", created_at=datetime.now(UTC) - timedelta(days=9)))
        finding = await the("oldest_run", url)
        assert finding.verdict is GOOD
        assert finding.found == "1 run, the oldest made 9 days ago"
        await store.create_run(a_run("old", created_at=datetime(2001, 1, 1, tzinfo=UTC)))
    finding = await the("oldest_run", url)
    assert finding.verdict is WARNING
    assert finding.advice.endswith("workflow-store runs purge --created-before 365d")
