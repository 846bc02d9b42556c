"""Examinations as a whole, and of databases that cannot be examined."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack, aclosing, closing

import asyncpg
import pytest
from sqlalchemy import make_url

from support.databases import on_server
from support.doctor import (
    BAD,
    COMMON,
    GOOD,
    ODD_SCHEMA,
    POSTGRESQL_ONLY,
    SQLITE_ONLY,
    WARNING,
    create_runs,
    execute,
    file_of,
    finding_of,
    findings_of,
    statements_of,
)
from support.next_version import FIRST
from support.waiting import PATIENCE_S, threads_ended, until
from workflow_store import StoreUnavailableError, open_store
from workflow_store.sql import doctor, migrate
from workflow_store.sql.doctor import Verdict, examine, postgresql, sqlite

# -- whole examinations -------------------------------------------------------------------------


async def test_a_database_in_use_is_good(url: str) -> None:
    """Except that the test server may have been built without lz4."""
    async with open_store(url) as store:
        await create_runs(store)
        findings = await findings_of(url)
    expected = COMMON | (SQLITE_ONLY if file_of(url) else POSTGRESQL_ONLY)
    assert set(findings) == expected
    assert {check for check, finding in findings.items() if finding.verdict is not GOOD} <= {
        "compression"
    }
    assert findings["oldest_run"].found.startswith("3 runs, ")
    assert findings["orphans"].found == "none (checked 6 steps and 0 claims)"
    assert "steps" in findings["sizes"].found


async def test_tables_in_a_schema_of_their_own_are_examined_there(empty_postgres_url: str) -> None:
    """Not the tables that the search path finds."""
    await migrate.upgrade(empty_postgres_url)
    await migrate.upgrade(empty_postgres_url, schema=ODD_SCHEMA)
    await execute(
        empty_postgres_url,
        f'DROP INDEX "{ODD_SCHEMA}".ix_steps_wait_task_id;\n\nDROP TABLE public.claims',
    )
    findings = await findings_of(empty_postgres_url, schema=ODD_SCHEMA)
    assert set(findings) == COMMON | POSTGRESQL_ONLY
    assert findings["tables"].verdict is GOOD
    assert findings["indexes"].verdict is BAD
    assert "claims" in findings["sizes"].found
    assert (await finding_of("sizes", empty_postgres_url)).found.count("runs ") == 1
    await execute(empty_postgres_url, statements_of(findings["indexes"]))
    assert (await finding_of("indexes", empty_postgres_url, schema=ODD_SCHEMA)).verdict is GOOD


@pytest.mark.parametrize("schema", ["public", ODD_SCHEMA])
async def test_a_schema_that_is_the_default_of_connections_may_be_named(
    empty_postgres_url: str, schema: str
) -> None:
    """Tables of the same names further along the search path are ignored."""
    await migrate.upgrade(empty_postgres_url)
    await migrate.upgrade(empty_postgres_url, schema=schema)
    database = make_url(empty_postgres_url).database
    path = f'ALTER DATABASE {database} SET search_path = "{schema}", public'
    await execute(empty_postgres_url, path)
    findings = await findings_of(empty_postgres_url, schema=schema)
    assert findings["tables"].found == "match this version"
    assert findings["indexes"].found == "all present"

    await execute(empty_postgres_url, f'DROP INDEX "{schema}".ix_steps_wait_task_id')
    finding = await finding_of("indexes", empty_postgres_url, schema=schema)
    assert finding.verdict is BAD
    await execute(empty_postgres_url, f"ALTER DATABASE {database} RESET search_path")
    await execute(empty_postgres_url, statements_of(finding))
    await execute(empty_postgres_url, path)
    assert (await finding_of("indexes", empty_postgres_url, schema=schema)).verdict is GOOD

    await execute(empty_postgres_url, f'DROP TABLE "{schema}".claims')
    finding = await finding_of("tables", empty_postgres_url, schema=schema)
    assert finding.verdict is BAD
    assert finding.found == "missing or altered: table claims"


def test_each_check_is_documented() -> None:
    for check in COMMON | SQLITE_ONLY | POSTGRESQL_ONLY:
        assert f"| `{check}` |" in str(doctor.__doc__)


async def test_findings_are_yielded_at_once_and_stopping_there_closes_everything(
    url: str,
) -> None:
    threads = set(threading.enumerate())
    async with aclosing(examine(url)) as findings:
        async for finding in findings:
            assert finding.check == "reachable"
            break
    await threads_ended(threads)
    if file_of(url) is None:

        async def nobody_is_connected() -> bool:
            connection = await asyncpg.connect(url)
            try:
                others = "datname = current_database() AND pid <> pg_backend_pid()"
                count = await connection.fetchval(
                    f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
                )
                return bool(count == 0)
            finally:
                await connection.close()

        await until(nobody_is_connected)


@pytest.mark.parametrize("url", ["memory://", "mysql://host/name", "no url"])
async def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"nothing to check|upported"):
        await findings_of(url)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
async def test_a_time_out_of_range_is_refused(file_url: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="running_for_s"):
        await findings_of(file_url, running_for_s=seconds)


async def test_the_url_and_the_schema_are_those_of_the_environment_by_default(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.upgrade(empty_postgres_url, schema="ours")
    monkeypatch.setenv("WORKFLOW_STORE_URL", empty_postgres_url)
    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", "ours")
    findings = {finding.check: finding async for finding in examine()}
    assert findings["tables"].verdict is GOOD


# -- it only reads ---------------------------------------------------------------------


async def test_a_missing_file_is_not_created(sqlite_url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        await findings_of(sqlite_url)
    file = file_of(sqlite_url)
    assert file is not None
    assert list(file.parent.iterdir()) == []


@pytest.mark.usefixtures("next_version")
async def test_a_file_stays_the_same_to_the_byte(sqlite_url: str) -> None:
    """Even the journal mode of an older one."""
    await migrate.upgrade(sqlite_url, FIRST)
    file = file_of(sqlite_url)
    assert file is not None
    before = file.read_bytes()
    findings = await findings_of(sqlite_url)
    assert findings["journal_mode"].verdict is WARNING
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


async def test_writers_and_an_examination_do_not_wait_for_each_other(url: str) -> None:
    async with open_store(url) as store:
        await create_runs(store)
        async with aclosing(examine(url)) as findings:
            async for _ in findings:
                async with asyncio.timeout(PATIENCE_S):
                    await store.update_context("run 0", {"seen": 1})


# -- a database that cannot be examined ------------------------------------------------


async def test_a_missing_server_is_unavailable(server_url: str) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/postgres"
    missing = make_url(server_url).set(database="wfs_missing").render_as_string(hide_password=False)
    for url in (nowhere, missing):
        with pytest.raises(StoreUnavailableError):
            await findings_of(url)


async def test_a_server_that_goes_away_meanwhile_is_unavailable(
    server_url: str,
) -> None:
    findings = examine(server_url)
    async for finding in findings:
        if finding.check == "tables":
            break
    await on_server(
        server_url,
        f"SELECT pg_terminate_backend(pid, {PATIENCE_S * 1000:.0f}) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with pytest.raises(StoreUnavailableError):
        await anext(findings)


async def test_a_locked_file_is_unavailable(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT_S", 0.1)
    with closing(sqlite3.connect(file_of(file_url) or "", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailableError, match="SQLITE_BUSY"):
                await findings_of(file_url)


async def test_a_file_that_is_not_a_database_is_bad(sqlite_url: str) -> None:
    file = file_of(sqlite_url)
    assert file is not None
    file.write_text("All work and no play makes Jack a dull boy. " * 100)
    findings = await findings_of(sqlite_url)
    assert list(findings) == ["reachable"]
    assert findings["reachable"].verdict is BAD
    assert "SQLITE_NOTADB" in findings["reachable"].found
    assert "password" not in findings["reachable"].found


# -- checks of time -----------------------------------------------


async def test_a_check_that_takes_too_long_is_a_warning(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL because of a locked table, on SQLite because of many rows."""
    async with AsyncExitStack() as stack:
        other = None
        if file_of(url) is None:
            limit_s = 2.0
            other = await asyncpg.connect(url)
            stack.push_async_callback(other.close)
        else:
            limit_s = 0.0001
            await execute(
                url,
                "INSERT INTO runs WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                "WHERE i < 100000) SELECT i, 'a', 't', 'u', NULL, NULL, '{}', '{}', '{}', "
                "'2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000' FROM n",
            )
        findings = {}
        async for finding in examine(url):
            findings[finding.check] = finding
            # Only the next check takes too long: a busy machine needs more time for the others.
            is_next = finding.check == "indexes"
            monkeypatch.setattr(doctor, "LIMIT_S", limit_s if is_next else PATIENCE_S)
            if other is not None and is_next:
                await other.execute("BEGIN; LOCK TABLE runs")
            elif other is not None and finding.check == "oldest_run":
                await other.execute("ROLLBACK")
    assert findings["oldest_run"].verdict is WARNING
    assert findings["oldest_run"].found.startswith("not checked: the check took longer than ")
    assert findings["revision"].verdict is GOOD
    assert findings["abandoned_claims"].verdict is GOOD


async def test_a_slow_round_trip_is_a_warning(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_ROUND_TRIP_S", 0.0)
    assert (await finding_of("reachable", url)).verdict is WARNING


@pytest.mark.parametrize(
    ("ahead_s", "verdict"), [(0.1, GOOD), (5.0, WARNING), (-5.0, WARNING), (20.0, BAD), (-20, BAD)]
)
async def test_a_wrong_clock_is_reported(server_url: str, ahead_s: float, verdict: Verdict) -> None:
    """This database has a clock of its own, first on its search path."""
    database = make_url(server_url).database
    await execute(
        server_url,
        "CREATE SCHEMA fake;\n\nCREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz "
        "LANGUAGE sql VOLATILE AS $$SELECT pg_catalog.clock_timestamp() + "
        f"interval '{ahead_s} seconds'$$;\n\n"
        f"ALTER DATABASE {database} SET search_path = fake, public, pg_catalog",
    )
    finding = await finding_of("clock", server_url)
    assert finding.verdict is verdict
    if verdict is not GOOD:
        assert f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'}" in finding.found


async def test_a_version_that_is_too_old_is_bad(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite, postgresql):
        monkeypatch.setattr(module, "OLDEST_VERSION", (99, 1))
    finding = await finding_of("version", url)
    assert finding.verdict is BAD
    assert "99" in finding.advice
