"""A fixture of all stores at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.all_stores import AllStores
from workflow_store import (
    InMemoryWorkflowStore,
    ResumableWorkflowStore,
    SqlWorkflowStore,
)


@pytest.fixture
def all_stores(sqlite_url: str, postgres_url: str) -> Iterator[AllStores]:
    stores: dict[str, ResumableWorkflowStore] = {
        "memory": InMemoryWorkflowStore(),
        "sqlite-file": SqlWorkflowStore(sqlite_url, synchronous="NORMAL"),
        "sqlite-memory": SqlWorkflowStore("sqlite://"),
        "postgresql": SqlWorkflowStore(postgres_url),
    }
    with asyncio.Runner() as runner:
        all_stores = AllStores(runner, stores)
        try:
            for store in stores.values():
                runner.run(store.open())
            yield all_stores
        finally:
            for store in stores.values():
                runner.run(store.close())
