"""From a URL to the store that keeps runs there."""

from __future__ import annotations

from typing import Unpack

from .memory import InMemoryWorkflowStore
from .sql.dialects import EngineOptions, validated_options
from .sql.store import SqlWorkflowStore
from .sql.urls import default_url
from .store import ResumableWorkflowStore

__all__ = ["open_store"]


def open_store(
    url: str | None = None,
    *,
    schema: str | None = None,
    migrate: bool | None = None,
    **options: Unpack[EngineOptions],
) -> ResumableWorkflowStore:
    """Give the store for a URL, to be opened with `async with` or `await store.open()`.

    * `memory://`: `InMemoryWorkflowStore`
    * `sqlite:///file.db`, `sqlite:////absolute/file.db`, and `sqlite://` for a database in
      memory: `SqlWorkflowStore` on SQLite
    * `postgresql://user:password@host/database`, `postgres://…`: `SqlWorkflowStore` on
      PostgreSQL

    The driver may be named: `sqlite+aiosqlite`, `postgresql+asyncpg`. Moving from one
    database to another is a change of URL: what the other one does not know has no effect.

    Args:
        url: the database; by default the environment's `WORKFLOW_STORE_URL`, else
            `sqlite:///workflow_store.db`.
        schema: the PostgreSQL schema of the tables; by default `WORKFLOW_STORE_SCHEMA`.
        migrate: whether opening brings the database to the newest revision; by default it
            does on SQLite and only checks on PostgreSQL.
        options: see `EngineOptions`.

    Raises:
        ValueError: the URL names nothing that is supported; the message lists what is. Or
            an option is unknown or out of range.
    """
    url = default_url() if url is None else url
    if url == "memory://":
        validated_options(options)  # a typo is an error on every store
        return InMemoryWorkflowStore()
    return SqlWorkflowStore(url, schema=schema, migrate=migrate, **options)
