"""Fixtures of host applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from support.databases import drop_database, empty_tables, new_database
from support.failures import execute
from support.host_transactions import KINDS, Host, Kind
from support.schema import ODD_SCHEMA
from workflow_store import SqlWorkflowStore
from workflow_store.sql import migrate


@pytest.fixture(scope="session")
def migrated_odd_schema_url(postgres_server: str) -> Iterator[str]:
    """A database with our tables in `ODD_SCHEMA`, which the tests use one after the other."""
    url = new_database(postgres_server)
    asyncio.run(migrate.upgrade(url, schema=ODD_SCHEMA))
    yield url
    drop_database(postgres_server, url)


@pytest.fixture
def odd_schema_url(migrated_odd_schema_url: str) -> str:
    """A database with our tables in `ODD_SCHEMA`, empty."""
    asyncio.run(empty_tables(migrated_odd_schema_url, f'"{ODD_SCHEMA}"'))
    return migrated_odd_schema_url


@pytest.fixture(params=KINDS)
def url_and_kind(request: pytest.FixtureRequest) -> tuple[str, Kind]:
    kind = KINDS[request.param]
    return request.getfixturevalue(kind.fixture), kind


@pytest.fixture
async def host(url_and_kind: tuple[str, Kind]) -> AsyncIterator[Host]:
    url, kind = url_and_kind
    async with SqlWorkflowStore(url, schema=kind.schema) as store:
        await execute(url, "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
        engine = kind.make(url)
        try:
            yield Host(url, engine, store)
        finally:
            await engine.dispose()
            await execute(url, "DROP TABLE orders")
