"""Tables that are partitioned by hash of the run, as docs/scaling.md says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.databases import (
    checked_out,
    drop_database,
    empty_tables,
    new_database,
    on_server,
)
from support.next_version import use_next_version
from support.partitioning import partition
from support.processes import query
from workflow_store import ResumableWorkflowStore, WorkflowStore, WorkflowStoreError, open_store
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Finding, Verdict, examine
from workflow_store.testing import ResumableWorkflowStoreContract, a_run, a_step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made_once(postgres_server: str) -> Iterator[str]:
    url = new_database(postgres_server)
    asyncio.run(migrate.upgrade(url))
    asyncio.run(partition(url))
    yield url
    drop_database(postgres_server, url)


@pytest.fixture
def partitioned_url(made_once: str) -> str:
    """A database with partitioned tables, empty."""
    asyncio.run(empty_tables(made_once))
    return made_once


class TestPartitioned(ResumableWorkflowStoreContract):
    """The whole contract."""

    @pytest.fixture
    async def store(self, partitioned_url: str) -> AsyncIterator[WorkflowStore]:
        async with open_store(partitioned_url) as store:
            yield store
            assert checked_out(store) == 0


async def test_rows_and_their_order_outlive_the_change(empty_postgres_url: str) -> None:
    url = empty_postgres_url
    runs = [f"r{number}" for number in range(40)]
    async with open_store(url, migrate=True) as store:
        assert isinstance(store, ResumableWorkflowStore)
        for run_task_id in runs:
            await store.create_run(a_run(run_task_id))
        for number in range(5):
            for run_task_id in runs:
                step = a_step(f"s{9 - number}", result=number, wait_task_id=f"{run_task_id}.w")
                await store.upsert_step(run_task_id, step)
        claim = await store.claim_run("r7", owner="me", lease_s=3600)
        assert claim is not None
        before = [await store.load_run(run_task_id) for run_task_id in runs]
        page = await store.list_runs(limit=1000)
    await partition(url)
    async with open_store(url) as store:
        assert isinstance(store, ResumableWorkflowStore)
        assert [await store.load_run(run_task_id) for run_task_id in runs] == before
        assert await store.list_runs(limit=1000) == page
        await store.fenced(claim).upsert_step("r7", a_step("new"))
        assert [step.step_id for step in await store.list_steps("r7")][-1] == "new"
        waiting = await store.find_waiting_step("r3.w")
        assert waiting is not None
        assert waiting.step.step_id == "s5", "the one that was inserted last"
    in_parts = await query(url, "SELECT count(DISTINCT tableoid) FROM steps")
    assert in_parts[0][0] > 10


@pytest.mark.parametrize("schema", [None, "workflows"])
async def test_check_and_doctor_take_the_partitioned_tables_as_ours(
    empty_postgres_url: str, schema: str | None
) -> None:
    await migrate.upgrade(empty_postgres_url, schema=schema)
    await partition(empty_postgres_url, schema=schema)
    await migrate.check(empty_postgres_url, schema=schema)
    async with open_store(empty_postgres_url, schema=schema) as store:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step(result="x" * 100))
    findings = await found_by_doctor(empty_postgres_url, schema)
    for name in ("revision", "tables", "indexes", "rights", "invalid_indexes", "orphans"):
        assert findings[name].verdict is Verdict.GOOD, findings[name]


async def test_doctor_looks_into_the_partitions(empty_postgres_url: str) -> None:
    """The rows, indexes and sizes of a partitioned table are those of its partitions."""
    url = empty_postgres_url
    await migrate.upgrade(url)
    await partition(url)
    before = await found_by_doctor(url)
    async with open_store(url) as store:
        for run in range(20):
            await store.create_run(a_run(f"r{run}", context="x" * 1000))
    await on_server(url, "DROP INDEX ix_steps_wait_task_id")
    await on_server(url, "DROP INDEX ix_runs_created_at_run_task_id")
    await on_server(url, "CREATE INDEX broken ON runs_3 (entry_point)")
    await on_server(
        url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass"
    )
    findings = await found_by_doctor(url)
    assert findings["sizes"] != before["sizes"]
    assert "public.broken" in findings["invalid_indexes"].found
    assert findings["indexes"].verdict is Verdict.BAD
    _, _, advice = findings["indexes"].advice.partition(": ")
    await on_server(url, advice.replace("; ", ";\n\n"))
    assert (await found_by_doctor(url))["indexes"].verdict is Verdict.GOOD


async def test_doctor_misses_a_primary_key_of_the_partitioned_tables(
    empty_postgres_url: str,
) -> None:
    await migrate.upgrade(empty_postgres_url)
    await partition(empty_postgres_url)
    await on_server(empty_postgres_url, "ALTER TABLE steps DROP CONSTRAINT pk_steps")
    tables = (await found_by_doctor(empty_postgres_url))["tables"]
    assert tables.verdict is Verdict.BAD
    assert "the primary key of steps" in tables.found


async def found_by_doctor(url: str, schema: str | None = None) -> dict[str, Finding]:
    return {found.check: found async for found in examine(url, schema=schema)}


async def test_a_revision_that_cannot_be_applied_to_partitions_changes_nothing(
    empty_postgres_url: str, next_checkout: Path
) -> None:
    """It builds indexes beside writers, which PostgreSQL cannot do on a partitioned table."""
    await migrate.upgrade(empty_postgres_url)
    await partition(empty_postgres_url)
    before = await found_by_doctor(empty_postgres_url)
    with use_next_version(next_checkout), pytest.raises(WorkflowStoreError):
        await migrate.upgrade(empty_postgres_url)
    await migrate.check(empty_postgres_url)
    after = await found_by_doctor(empty_postgres_url)
    assert (after["tables"], after["indexes"]) == (before["tables"], before["indexes"])
