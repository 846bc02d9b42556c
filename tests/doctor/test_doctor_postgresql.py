"""Checks of a PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

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
    WARNING,
    create_runs,
    execute,
    finding_of,
    findings_of,
    statements_of,
)
from support.waiting import until
from workflow_store import open_store
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict, postgresql, postgresql_tables
from workflow_store.sql.models import VERSION_TABLE

pytestmark = [pytest.mark.slow, pytest.mark.measured]


async def test_a_read_only_server_is_bad(server_url: str) -> None:
    """All other checks run there too."""
    database = make_url(server_url).database
    await execute(server_url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    findings = await findings_of(server_url)
    assert findings["primary"].verdict is BAD
    assert set(findings) == COMMON | POSTGRESQL_ONLY
    assert not any(finding.found.startswith("not checked") for finding in findings.values())


@pytest.mark.parametrize(
    ("setting", "verdict"),
    [("fsync", BAD), ("full_page_writes", WARNING), ("synchronous_commit", WARNING)],
)
async def test_a_setting_that_gives_up_durability_is_reported(
    server_url: str, setting: str, verdict: Verdict
) -> None:
    reload = "SELECT pg_reload_conf()"

    async def is_reported() -> bool:
        finding = await finding_of("durability", server_url)
        return finding.verdict is verdict and f"{setting}=off" in finding.found

    assert (await finding_of("durability", server_url)).verdict is GOOD
    try:
        await execute(server_url, f"ALTER SYSTEM SET {setting} = off;\n\n{reload}")
        await until(is_reported)
    finally:
        await execute(server_url, f"ALTER SYSTEM RESET {setting};\n\n{reload}")


async def test_a_server_with_too_few_connections_is_a_warning(server_url: str) -> None:
    finding = await finding_of("connections", server_url, pool_size=1_000)
    assert finding.verdict is WARNING
    assert "a store opens up to 1,000" in finding.found


@asynccontextmanager
async def a_role(url: str, *grants: str, options: str = "") -> AsyncIterator[str]:
    """Create a role with rights in a database, and yield its URL."""
    role = f"role of {make_url(url).database}"
    sql = [f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'secret' {options}"]
    sql += [f'GRANT {grant} TO "{role}"' for grant in grants]
    await on_server(url, ";\n\n".join(sql))
    try:
        yield (
            make_url(url)
            .set(username=role, password="secret")
            .render_as_string(hide_password=False)
        )
    finally:
        await on_server(url, f'DROP OWNED BY "{role}";\n\nDROP ROLE "{role}"')


async def test_missing_rights_are_reported_with_the_sql_that_grants_them(server_url: str) -> None:
    """Only rights on tables: a store needs none on their sequences."""
    async with a_role(server_url, "SELECT ON runs", "INSERT, DELETE ON steps") as url:
        findings = await findings_of(url)
        finding = findings["rights"]
        assert finding.verdict is BAD
        assert "public.runs (INSERT, UPDATE, DELETE)" in finding.found
        assert "public.steps (SELECT, UPDATE)" in finding.found
        assert f"public.{VERSION_TABLE} (SELECT)" in finding.found
        assert findings["revision"].found.startswith("not checked: ")
        assert findings["running_steps"].found.startswith("not checked: ")
        assert findings["tables"].verdict is GOOD
        assert "secret" not in "".join(map(str, findings.values()))

        await execute(server_url, statements_of(finding))
        assert (await finding_of("rights", url)).verdict is GOOD
        async with open_store(url) as store:
            await create_runs(store)
            await store.claim_run("run 0", owner="me", lease_s=0.001)
            await asyncio.sleep(0.01)
            await store.claim_abandoned_runs(owner="me")
            await store.delete_run("run 0")


async def test_a_schema_that_a_role_may_not_use_is_bad(empty_postgres_url: str) -> None:
    await migrate.upgrade(empty_postgres_url, schema=ODD_SCHEMA)
    async with a_role(empty_postgres_url) as url:
        finding = await finding_of("rights", url, schema=ODD_SCHEMA)
        assert finding.verdict is BAD
        assert f'schema "{ODD_SCHEMA}"' in finding.found
        await execute(empty_postgres_url, statements_of(finding))
        assert (await finding_of("rights", url, schema=ODD_SCHEMA)).verdict is GOOD


async def test_a_role_with_few_connections_is_a_warning(server_url: str) -> None:
    async with a_role(server_url, "pg_read_all_data", options="CONNECTION LIMIT 4") as url:
        finding = await finding_of("connections", url)
        assert finding.verdict is WARNING
        assert finding.found.startswith("3 of ")
        assert (await finding_of("connections", url, pool_size=3)).verdict is GOOD


async def test_the_connections_of_others_count_for_every_role(server_url: str) -> None:
    """Although most roles do not see the kind of others' sessions."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(a_role(server_url))
        before = [await free_connections(server_url), await free_connections(url)]
        for _ in range(HELD):
            other = await asyncpg.connect(server_url)
            stack.push_async_callback(other.close)
        after = [await free_connections(server_url), await free_connections(url)]
    for then, now in zip(before, after, strict=True):
        assert abs(then - now - HELD) <= A_FEW
    assert abs(after[0] - after[1]) <= A_FEW


HELD, A_FEW = 12, 4
"""Connections that a test holds, and those that the server may use itself."""


async def free_connections(url: str) -> int:
    return int((await finding_of("connections", url)).found.partition(" ")[0])


@pytest.mark.parametrize(
    "meanwhile", ["DELETE FROM runs", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"]
)
async def test_an_index_whose_build_failed_is_reported_with_the_sql_that_builds_it(
    server_url: str, meanwhile: str
) -> None:
    """At the start, which waits for writers, or at the end, which waits for readers."""
    index = "ix_runs_created_at_run_task_id"
    await execute(server_url, f"DROP INDEX {index}")
    other = await asyncpg.connect(server_url)
    try:
        await other.execute(f"BEGIN; {meanwhile}")
        with pytest.raises(asyncpg.QueryCanceledError):
            await on_server(
                server_url,
                "SET statement_timeout = 300;\n\n"
                f"CREATE INDEX CONCURRENTLY {index} ON runs (created_at, run_task_id)",
            )
    finally:
        await other.close()
    findings = await findings_of(server_url)
    assert findings["invalid_indexes"].verdict is BAD
    assert f"public.{index}" in findings["invalid_indexes"].found
    assert findings["indexes"].verdict is GOOD
    await execute(server_url, statements_of(findings["invalid_indexes"]))
    assert (await finding_of("invalid_indexes", server_url)).verdict is GOOD


@asynccontextmanager
async def a_build(url: str) -> AsyncIterator[None]:
    """Build the index `theirs` concurrently; the build waits for a writer meanwhile."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(on_server, url, "DROP INDEX theirs")
        writer, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
        stack.push_async_callback(writer.close)
        stack.push_async_callback(watcher.close)
        await writer.execute("BEGIN; DELETE FROM runs")
        sql = "CREATE INDEX CONCURRENTLY theirs ON runs (created_at)"
        building = asyncio.create_task(on_server(url, sql))
        stack.push_async_callback(asyncio.wait, [building])
        stack.push_async_callback(writer.execute, "ROLLBACK")

        async def is_shown() -> bool:
            builds = "pg_stat_progress_create_index WHERE index_relid = to_regclass('theirs')"
            return bool(await watcher.fetchval(f"SELECT count(*) FROM {builds}"))

        await until(is_shown)
        yield


async def test_an_invalid_index_is_reported_to_a_role_that_does_not_see_the_builds_of_others(
    server_url: str, postgres_url: str
) -> None:
    """Most roles see that others build an index and in which database, but not which one."""
    index = "ix_runs_created_at_run_task_id"
    alone = f"unused, but still slowing down writes: public.{index}"
    invalid = f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
    await execute(server_url, invalid)
    async with a_role(server_url) as url:
        async with a_build(postgres_url):
            for role_url in (url, server_url):
                finding = await finding_of("invalid_indexes", role_url)
                assert (finding.verdict, finding.found) == (BAD, alone)
        async with a_build(server_url):
            finding = await finding_of("invalid_indexes", url)
            assert finding.verdict is WARNING
            assert f"public.{index}, public.theirs" in finding.found
            assert "pg_read_all_stats" in finding.found
            assert (await finding_of("invalid_indexes", server_url)).found == alone


@pytest.fixture
def url_with_lz4(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("lz4_url"))


async def test_compression_is_reported_with_the_sql_that_turns_lz4_on(url_with_lz4: str) -> None:
    url = url_with_lz4
    await migrate.upgrade(url)
    assert (await finding_of("compression", url)).verdict is GOOD
    await execute(url, "ALTER TABLE runs ALTER COLUMN context SET COMPRESSION pglz")
    finding = await finding_of("compression", url)
    assert finding.verdict is WARNING
    await execute(url, statements_of(finding))
    assert (await finding_of("compression", url)).verdict is GOOD


async def test_a_server_without_lz4_is_a_warning(server_url: str) -> None:
    finding = await finding_of("compression", server_url)
    assert finding.verdict is WARNING
    assert "built without lz4" in finding.found


async def test_many_dead_rows_are_a_warning(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_tables, "DEAD_ROWS_THAT_MATTER", 5)
    await execute(server_url, "ALTER TABLE runs SET (autovacuum_enabled = off)")
    async with open_store(server_url) as store:
        await create_runs(store)
        for number in range(20):
            await store.update_context("run 0", {"number": number})

    async def is_reported() -> bool:
        finding = await finding_of("bloat", server_url)
        return finding.verdict is WARNING and "VACUUM (ANALYZE) public.runs" in finding.advice

    await until(is_reported)
    await execute(server_url, "VACUUM runs")

    async def is_good() -> bool:
        return (await finding_of("bloat", server_url)).verdict is GOOD

    await until(is_good)


async def test_a_long_transaction_is_reported_with_the_sql_that_ends_it(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LONG_TRANSACTION_S", 0.2)
    assert (await finding_of("old_transactions", server_url)).verdict is GOOD
    other = await asyncpg.connect(server_url)
    await other.execute("BEGIN; SELECT FROM runs")

    async def is_reported() -> bool:
        return (await finding_of("old_transactions", server_url)).verdict is WARNING

    await until(is_reported)
    finding = await finding_of("old_transactions", server_url)
    assert finding.found.startswith("1 open for over ")
    async with a_role(server_url) as url:
        finding_of_others = await finding_of("old_transactions", url)
        assert finding_of_others.verdict is GOOD
        assert "pg_read_all_stats" in finding_of_others.found
    await execute(server_url, finding.advice.rpartition(": ")[2])
    assert (await finding_of("old_transactions", server_url)).verdict is GOOD
    other.terminate()


@pytest.mark.parametrize(("ages", "verdict"), [((1, 10**9), WARNING), ((0, 1), BAD)])
async def test_transaction_ids_that_run_out_are_reported(
    server_url: str, ages: tuple[int, int], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await finding_of("wraparound", server_url)).verdict is GOOD
    monkeypatch.setattr(postgresql, "AGES_THAT_MATTER", ages)
    finding = await finding_of("wraparound", server_url)
    assert finding.verdict is verdict
    assert "VACUUM (FREEZE)" in finding.advice


async def test_a_direct_connection_has_no_pooler(server_url: str) -> None:
    finding = await finding_of("pooler", server_url)
    assert finding.verdict is GOOD
    assert finding.found.startswith("none")
