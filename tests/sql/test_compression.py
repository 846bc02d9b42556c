"""Large JSON values are compressed by lz4 if the server supports it, and stay the same."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from support.databases import on_server
from workflow_store import SqlWorkflowStore, open_store
from workflow_store.sql import migrate
from workflow_store.testing import a_run, a_step

pytestmark = pytest.mark.slow

JSON_COLUMNS = {"definition", "input", "context", "result", "error"}
ODD_SCHEMA = 'it\'s "odd": $$%s'
LARGE = {"text": ["all work and no play"] * 5_000}


async def rows(url: str, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def compressed_by_lz4(url: str, schema: str = "public") -> set[str]:
    """The columns whose values are compressed by lz4 from now on."""
    sql = (
        "SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE attcompression = 'l' AND nspname = $1 AND relname IN ('runs', 'steps')"
    )
    return {name for (name,) in await rows(url, sql, schema)}


async def test_if_the_server_has_lz4_large_values_are_compressed_by_it(lz4_url: str) -> None:
    """Values that were compressed by another method stay as they are, and read the same."""
    async with SqlWorkflowStore(lz4_url, migrate=True) as store:
        assert await compressed_by_lz4(lz4_url) == JSON_COLUMNS
        await store.create_run(a_run(input=LARGE))
        method = "ALTER TABLE steps ALTER COLUMN result SET COMPRESSION"
        await on_server(lz4_url, f"{method} pglz")
        await store.upsert_step("run", a_step("pglz", result=LARGE))
        await on_server(lz4_url, f"{method} lz4")
        await store.upsert_step("run", a_step("lz4", result=LARGE))
        methods = "SELECT step_id, pg_column_compression(result) FROM steps ORDER BY seq"
        assert await rows(lz4_url, methods) == [("pglz", "pglz"), ("lz4", "lz4")]
        snapshot = await store.load_run("run")
        assert snapshot is not None
        assert [snapshot.run.input, *(step.result for step in snapshot.steps)] == [LARGE] * 3


async def test_if_the_server_has_no_lz4_nothing_is_set(empty_postgres_url: str) -> None:
    """And the migration does not fail."""
    has = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name LIKE 'default_toast_c%'"
    expected = JSON_COLUMNS if (True,) in await rows(empty_postgres_url, has) else set()
    await migrate.upgrade(empty_postgres_url)
    assert await compressed_by_lz4(empty_postgres_url) == expected


async def test_a_schema_of_any_name_is_compressed_too(lz4_url: str) -> None:
    """Online, and by the SQL for a database team."""
    await migrate.upgrade(lz4_url, schema=ODD_SCHEMA)
    assert await compressed_by_lz4(lz4_url, ODD_SCHEMA) == JSON_COLUMNS
    by_hand = f"{ODD_SCHEMA} by hand"
    await on_server(lz4_url, await migrate.offline_sql(lz4_url, schema=by_hand))
    assert await compressed_by_lz4(lz4_url, by_hand) == JSON_COLUMNS
    async with open_store(lz4_url, schema=by_hand) as store:
        await store.create_run(a_run(input=LARGE))
