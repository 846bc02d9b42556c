"""Calls on databases that fail, checks of their errors, and ways to break a database."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from support.databases import on_server
from support.waiting import PATIENCE_S, until
from workflow_store import (
    ResumableWorkflowStore,
    SchemaMismatchError,
    StoreUnavailableError,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    WorkflowStoreError,
    open_store,
)

PASSWORD = "PASSW0RD-S3CR3T"
PAYLOAD = "PAYL0AD-S3CR3T"

HOSTILE = {
    "z first": [10**400, -(2**64), "\0", "\ud800", "\udc00", "\U0001f600", -0.0, 1, 1.0, True],
    "a second": {"": None, "\0": {}, "e": [], "1e400": 5e-324, "float": 1.7976931348623157e308},
}


def run(run_task_id: str = "r", **fields: Any) -> WorkflowExecutionState:
    return WorkflowExecutionState(
        run_task_id=run_task_id,
        agent_id="a",
        thread_id="t",
        user_id="u",
        definition={"payload": PAYLOAD},
        **fields,
    )


def step(step_id: str = "s", **fields: Any) -> WorkflowStepState:
    return WorkflowStepState(step_id=step_id, **{"result": PAYLOAD, "error": PAYLOAD, **fields})


def calls(store: WorkflowStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return the seven calls, each of which succeeds on a run `r` with a step `s`."""
    return {
        "create_run": lambda: store.create_run(run(context=PAYLOAD)),
        "get_run": lambda: store.get_run("r"),
        "update_context": lambda: store.update_context("r", {"payload": PAYLOAD}),
        "upsert_step": lambda: store.upsert_step("r", step()),
        "get_step": lambda: store.get_step("r", "s"),
        "list_steps": lambda: store.list_steps("r"),
        "delete_run": lambda: store.delete_run("gone"),
    }


READS = {"get_run", "get_step", "list_steps"}


def check(error: WorkflowStoreError, expected: type[WorkflowStoreError], *said: str) -> None:
    """Assert that an error is of the expected type, has a cause and contains no secret."""
    assert type(error) is expected, repr(error)
    assert error.__cause__ is not None or expected is SchemaMismatchError
    message = str(error)
    assert "S3CR3T" not in message
    assert "S3CR3T" not in repr(error)
    for words in said:
        assert words in message
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is expected
    assert str(again) == message


async def fails(
    call: Awaitable[object], expected: type[WorkflowStoreError], *said: str
) -> WorkflowStoreError:
    with pytest.raises(WorkflowStoreError) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await call
    check(caught.value, expected, *said)
    return caught.value


def path_of(url: str) -> Path:
    database = make_url(url).database
    assert database is not None
    return Path(database)


async def execute(url: str, *statements: str) -> None:
    """Run statements on a database without the store."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(path_of(url), isolation_level=None)
        try:
            for sql in statements:
                database.execute(sql)
        finally:
            database.close()
    else:
        for sql in statements:
            await on_server(url, sql)


@contextlib.asynccontextmanager
async def locked(url: str, tables: str = "runs, steps") -> AsyncIterator[int]:
    """Lock the tables in another connection. Yields its process id on PostgreSQL, else 0."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(path_of(url), isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        try:
            yield 0
        finally:
            database.rollback()
            database.close()
    else:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {tables}")
                yield connection.get_server_pid()
        finally:
            await connection.close()


_REFUSES = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON steps WHEN new.step_id = 'refused' "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF new.step_id = 'refused' THEN RAISE EXCEPTION 'refused %', new.result; END IF; "
        "RETURN new; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION refuse()",
    ),
}
_REFUSES_NO_MORE = {
    "sqlite": ("DROP TRIGGER refuse",),
    "postgresql": ("DROP TRIGGER refuse ON steps", "DROP FUNCTION refuse"),
}


@contextlib.asynccontextmanager
async def refusing(url: str) -> AsyncIterator[None]:
    """Make the database reject every step called `refused`, as it rejects a bad row."""
    kind = make_url(url).get_backend_name()
    await execute(url, *_REFUSES[kind])
    try:
        yield
    finally:
        await execute(url, *_REFUSES_NO_MORE[kind])


async def sessions(url: str, *, that: str = "true") -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            f"AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND {that}"
        )
    finally:
        await connection.close()
    return [row["pid"] for row in rows]


async def terminate(url: str, *, but: int = 0) -> None:
    """Terminate every other session of a database, as a restart or an administrator does."""
    pids = set(await sessions(url)) - {but}
    for pid in pids:
        await on_server(url, f"SELECT pg_terminate_backend({pid})")

    async def ended() -> bool:
        return pids.isdisjoint(await sessions(url))

    await until(ended)


async def cancel_waiting(url: str) -> None:
    """Cancel a statement that waits for a lock, once there is one, as `statement_timeout` does.

    The error is that of the timeout, 57014, and no machine is too busy for what comes before.
    """
    waiting: list[int] = []

    async def one_waits() -> bool:
        waiting[:] = await sessions(url, that="wait_event_type = 'Lock'")
        return bool(waiting)

    await until(one_waits)
    for pid in waiting:
        await on_server(url, f"SELECT pg_cancel_backend({pid})")


async def recovers(call: Callable[[], Awaitable[object]]) -> object:
    """Repeat a call until it succeeds, for a store whose timeouts a busy machine may exceed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                return await call()


@contextlib.asynccontextmanager
async def impatient_store(url: str, **options: Any) -> AsyncIterator[ResumableWorkflowStore]:
    """Open a store with short timeouts, as often as a busy machine needs."""
    store = open_store(url, **options)
    await recovers(store.open)
    try:
        yield store
    finally:
        await store.close()


async def no_sessions(url: str) -> None:
    """Wait until the server has seen every other client leave."""

    async def none() -> bool:
        return not await sessions(url)

    await until(none)
