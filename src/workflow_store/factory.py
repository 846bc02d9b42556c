"""`open_store`: from a URL to a store."""

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
    """Return the store for a URL, to be opened with `async with` or `await store.open()`.

    * `memory://`: `InMemoryWorkflowStore`
    * `sqlite:///file.db`, `sqlite:////absolute/file.db`, and `sqlite://` for a database in
      memory: `SqlWorkflowStore` on SQLite
    * `postgresql://user:password@host/database`, `postgres://…`: `SqlWorkflowStore` on
      PostgreSQL

    The drivers may be named: `sqlite+aiosqlite`, `postgresql+asyncpg`. Only the URL changes
    when moving to another database: arguments that it does not support have no effect.

    Args:
        url: the URL of the database. By default the environment variable
            `WORKFLOW_STORE_URL`, or else `sqlite:///workflow_store.db`.
        schema: the PostgreSQL schema of the tables. By default the environment variable
            `WORKFLOW_STORE_SCHEMA`.
        migrate: whether `open` upgrades the database to the newest revision, or only checks
            its revision. By default it upgrades SQLite and checks PostgreSQL.
        options: see `EngineOptions`.

    Raises:
        ValueError: the URL is malformed or not supported, and the message lists the supported
            ones; or an option is unknown or out of range.
    """
    url = default_url() if url is None else url
    if url == "memory://":
        validated_options(options)  # a typo is an error on every store
        return InMemoryWorkflowStore()
    return SqlWorkflowStore(url, schema=schema, migrate=migrate, **options)
