"""Host applications with an engine and a table of their own, beside a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy import column, event, table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from support.engines import lossy_dumps, lossy_loads, plain, recipe
from support.processes import query
from support.schema import ODD_SCHEMA
from workflow_store import (
    SqlWorkflowStore,
    WorkflowStore,
)
from workflow_store.testing import a_run, a_step

ORDERS = table("orders", column("id"), column("note"))


class Host(NamedTuple):
    """A host application, and a store with its own connections.

    Through these, nothing is visible before the host commits.
    """

    url: str
    engine: AsyncEngine
    store: SqlWorkflowStore

    async def orders(self) -> list[int]:
        """Return the ids of the host's committed rows."""
        return [number for (number,) in await query(self.url, "SELECT id FROM orders ORDER BY id")]


class Kind(NamedTuple):
    """How a host makes its engine, and the schema of its tables."""

    fixture: str
    make: Callable[[str], AsyncEngine]
    schema: str | None = None


TRANSACTIONAL = {
    "sqlite": Kind("sqlite_url", plain),
    "sqlite-begin": Kind("sqlite_url", lambda url: recipe(url, "BEGIN")),
    "sqlite-begin-immediate": Kind("sqlite_url", lambda url: recipe(url, "BEGIN IMMEDIATE")),
    "postgresql": Kind("postgres_url", plain),
    "postgresql-schema": Kind("odd_schema_url", plain, ODD_SCHEMA),
    "postgresql-lossy-json": Kind(
        "postgres_url",
        lambda url: plain(url, json_serializer=lossy_dumps, json_deserializer=lossy_loads),
    ),
}
KINDS = TRANSACTIONAL | {
    "sqlite-autocommit": Kind("sqlite_url", lambda url: plain(url, isolation_level="AUTOCOMMIT")),
}
WITH_SAVEPOINTS = [name for name in TRANSACTIONAL if name != "sqlite"]
"""Python's sqlite3 begins no transaction before a savepoint.

See https://docs.python.org/3/library/sqlite3.html#sqlite3-controlling-transactions.
"""


async def order(connection: AsyncConnection, number: int) -> None:
    """Insert a row into the host's table."""
    await connection.execute(ORDERS.insert().values(id=number, note="of the host"))


def calls(store: WorkflowStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the seven calls, each of which succeeds on a run `run` with a step `step`."""
    return {
        "create_run": lambda: store.create_run(a_run()),
        "get_run": lambda: store.get_run("run"),
        "update_context": lambda: store.update_context("run", "new"),
        "upsert_step": lambda: store.upsert_step("run", a_step(result="new")),
        "get_step": lambda: store.get_step("run", "step"),
        "list_steps": lambda: store.list_steps("run"),
        "delete_run": lambda: store.delete_run("gone"),
    }


def statements(engine: AsyncEngine) -> list[str]:
    """Return a list that records each statement from now on, and each commit."""
    recorded: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(_: Any, __: Any, sql: str, *___: Any) -> None:
        recorded.append(sql)

    @event.listens_for(engine.sync_engine, "commit")
    def note_commit(_: Any) -> None:
        recorded.append("COMMIT")

    return recorded
