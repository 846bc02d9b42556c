"""Fixtures of host applications."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.failures import execute
from support.host_transactions import KINDS, Host, Kind
from workflow_store import (
    SqlWorkflowStore,
)


@pytest.fixture(params=KINDS)
def url_and_kind(request: pytest.FixtureRequest) -> tuple[str, Kind]:
    kind = KINDS[request.param]
    return request.getfixturevalue(kind.fixture), kind


@pytest.fixture
async def host(url_and_kind: tuple[str, Kind]) -> AsyncIterator[Host]:
    url, kind = url_and_kind
    async with SqlWorkflowStore(url, schema=kind.schema, migrate=True) as store:
        await execute(url, "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
        engine = kind.make(url)
        try:
            yield Host(url, engine, store)
        finally:
            await engine.dispose()
            await execute(url, "DROP TABLE orders")
