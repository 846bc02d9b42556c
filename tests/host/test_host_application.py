"""A host application that keeps our tables in its own database, beside its own migrations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Table, Text

from support.databases import on_server
from support.engines import engine_of_a_host
from support.schema import (
    ODD_SCHEMA,
    OURS,
    add_rows,
    contents,
    execute,
    opened_and_migrated,
    tables,
)
from workflow_store import ResumableWorkflowStore, SchemaMismatchError, TaskStatus, open_store
from workflow_store.sql import migrate
from workflow_store.testing import a_run, a_step

pytestmark = [pytest.mark.slow, pytest.mark.measured]

Filters = Callable[[str | None], dict[str, Any]]


def host_models(*, runs: bool = False) -> MetaData:
    """Give the host's own tables; one of them may be called like one of ours."""
    metadata = MetaData()
    Table("accounts", metadata, Column("id", Integer, primary_key=True))
    Table(
        "orders",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("account_id", ForeignKey("accounts.id")),
    )
    if runs:
        Table("runs", metadata, Column("id", Integer, primary_key=True), Column("miles", Integer))
    return metadata


async def set_up_host(url: str, metadata: MetaData) -> dict[str, list[str]]:
    """Make the host's tables with rows, under a revision of its own; give all that is there."""
    async with engine_of_a_host(url) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await execute(
        url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY);"
        "INSERT INTO alembic_version VALUES ('4f1c0a9d7b2e');"
        "INSERT INTO accounts VALUES (7);"
        "INSERT INTO orders VALUES (8, 7);",
    )
    return await contents(url)


async def proposed(url: str, metadata: MetaData, **options: Any) -> list[Any]:
    """Tell what the host's autogenerate would write."""

    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    async with engine_of_a_host(url) as engine, engine.connect() as connection:
        return await connection.run_sync(compare)


def by_name(schema: str | None) -> dict[str, Any]:
    if schema is None:
        return {"include_name": migrate.include_name}
    return {"include_name": partial(migrate.include_name, schema=schema)}


def by_object(schema: str | None) -> dict[str, Any]:
    if schema is None:
        return {"include_object": migrate.include_object}
    return {"include_object": partial(migrate.include_object, schema=schema)}


@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
async def test_up_and_down_leave_the_hosts_tables_and_version_alone(
    empty_url: str, schema: str | None
) -> None:
    """Each has a version table of its own, and takes nothing of the other's along."""
    before = await set_up_host(empty_url, host_models())
    await migrate.upgrade(empty_url, schema=schema)
    await add_rows(empty_url, schema=schema)
    after_upgrade = await contents(empty_url)
    assert len(after_upgrade) >= len(before) + len(OURS)
    assert {name: after_upgrade[name] for name in before} == before
    await migrate.downgrade(empty_url, "base", schema=schema)
    after_downgrade = await contents(empty_url)
    assert {name: after_downgrade[name] for name in before} == before
    await opened_and_migrated(empty_url)
    assert (await contents(empty_url)).items() >= before.items()


async def test_ours_in_a_schema_leave_the_hosts_table_of_the_same_name_alone(
    empty_postgres_url: str,
) -> None:
    """A host's `runs` in its own schema and ours in another do not meet, on the way back too."""
    before = await set_up_host(empty_postgres_url, host_models(runs=True))
    await migrate.upgrade(empty_postgres_url, schema="ours")
    await add_rows(empty_postgres_url, schema="ours")
    assert (await contents(empty_postgres_url)).items() >= before.items()
    await migrate.downgrade(empty_postgres_url, "base", schema="ours")
    assert (await contents(empty_postgres_url)).items() >= before.items()
    assert "runs" in await tables(empty_postgres_url)


@pytest.mark.parametrize("include_schemas", [False, True])
@pytest.mark.parametrize("filters", [by_name, by_object])
async def test_the_hosts_autogenerate_looks_past_our_tables(
    empty_url: str, filters: Filters, include_schemas: bool
) -> None:
    """Nothing of ours is dropped, and what the host changed of its own is still found."""
    host = host_models()
    await set_up_host(empty_url, host)
    await migrate.upgrade(empty_url)
    # SQLite's only schema is listed as `main`, which no host asks for.
    options: dict[str, Any] = {"include_schemas": include_schemas and "sqlite" not in empty_url}
    found = await proposed(empty_url, host, **options)
    dropped = {change[1].name for change in found if change[0] == "remove_table"}
    assert dropped == OURS, "without a filter, all of ours would go"

    options |= filters(None)
    assert await proposed(empty_url, host, **options) == []
    host.tables["orders"].append_column(Column("note", Text))
    Table("invoices", host, Column("id", Integer, primary_key=True))
    host.remove(host.tables["accounts"])
    host.tables["orders"].constraints.clear()
    changes = {change[0] for change in await proposed(empty_url, host, **options)}
    assert changes >= {"add_column", "add_table", "remove_table"}


@pytest.mark.parametrize("filters", [by_name, by_object])
async def test_with_ours_in_a_schema_the_hosts_table_of_the_same_name_is_still_compared(
    empty_postgres_url: str, filters: Filters
) -> None:
    """The filter knows ours by name and schema, so that it hides no table of the host's."""
    host = host_models(runs=True)
    await set_up_host(empty_postgres_url, host)
    await migrate.upgrade(empty_postgres_url, schema=ODD_SCHEMA)
    everywhere: dict[str, Any] = {"include_schemas": True}
    found = await proposed(empty_postgres_url, host, **everywhere)
    dropped = {(c[1].schema, c[1].name) for c in found if c[0] == "remove_table"}
    assert dropped == {(ODD_SCHEMA, name) for name in OURS}, (
        "without a filter, all of ours would go"
    )

    options = everywhere | filters(ODD_SCHEMA)
    assert await proposed(empty_postgres_url, host, **options) == []
    host.tables["runs"].append_column(Column("kilometres", Integer))
    (change,) = await proposed(empty_postgres_url, host, **options)
    assert (change[0], change[2], change[3].name) == ("add_column", "runs", "kilometres")
    (change,) = await proposed(empty_postgres_url, host_models(), **options)
    assert (change[0], change[1].schema, change[1].name) == ("remove_table", None, "runs")


@pytest.mark.parametrize("filters", [by_name, by_object])
async def test_a_table_of_the_same_name_that_the_host_adds_is_proposed(
    empty_postgres_url: str, filters: Filters
) -> None:
    """With ours in a schema of their own, the host may call a table `runs` later on."""
    await set_up_host(empty_postgres_url, host_models())
    await migrate.upgrade(empty_postgres_url, schema=ODD_SCHEMA)
    options = filters(ODD_SCHEMA) | {"include_schemas": True}
    (change,) = await proposed(empty_postgres_url, host_models(runs=True), **options)
    assert (change[0], change[1].schema, change[1].name) == ("add_table", None, "runs")


async def test_without_a_schema_the_tables_are_where_the_connection_finds_them(
    empty_postgres_url: str,
) -> None:
    """As the role's search path says, for every method alike."""
    await on_server(empty_postgres_url, "CREATE SCHEMA elsewhere")
    url = f"{empty_postgres_url}&options=-csearch_path%3Delsewhere"
    async with open_store(url, migrate=True) as store:
        assert isinstance(store, ResumableWorkflowStore)
        await store.create_run(a_run())
        await store.commit_step("run", a_step(wait_task_id="w"), {})
        claim = await store.claim_run("run", owner="o")
        assert claim is not None
        await store.fenced(await store.renew_claim(claim)).upsert_step("run", a_step("other"))
        assert len((await store.list_runs(step_status=TaskStatus.PENDING)).runs) == 1
        assert await store.find_waiting_step("w") is not None
        await store.release_claim(claim)
        assert await store.claim_abandoned_runs(owner="o") == []
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        assert await store.purge_runs(created_before=tomorrow, only_terminal=False) == 1
    await migrate.check(empty_postgres_url, schema="elsewhere")
    with pytest.raises(SchemaMismatchError):
        await migrate.check(empty_postgres_url)
