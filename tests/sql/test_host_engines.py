"""Engines of callers, which stay as they are, and the store's own engine."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from support.databases import checked_out
from support.engines import lossy_dumps, lossy_loads, plain, recipe
from support.failures import HOSTILE, PAYLOAD, calls, execute, fails, path_of, run, step
from workflow_store import (
    ClaimLostError,
    RunNotFoundError,
    SqlWorkflowStore,
    TaskStatus,
    WorkflowStoreError,
)
from workflow_store.sql import migrate

ENGINES: dict[str, tuple[str, Callable[[str], AsyncEngine]]] = {
    "sqlite": ("sqlite_url", plain),
    "sqlite-begin": ("sqlite_url", lambda url: recipe(url, "BEGIN")),
    "sqlite-begin-immediate": ("sqlite_url", lambda url: recipe(url, "BEGIN IMMEDIATE")),
    "sqlite-autocommit": ("sqlite_url", lambda url: plain(url, isolation_level="AUTOCOMMIT")),
    "sqlite-autocommit-skip": (
        "sqlite_url",
        lambda url: plain(url, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True),
    ),
    "sqlite-null-pool": ("sqlite_url", lambda url: plain(url, poolclass=NullPool)),
    "sqlite-one-connection": ("sqlite_url", lambda url: plain(url, poolclass=StaticPool)),
    "sqlite-memory": ("memory_url", plain),
    "sqlite-memory-pool": (
        "memory_url",
        lambda url: plain(url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0),
    ),
    "postgresql": ("postgres_url", plain),
    "postgresql-autocommit": (
        "postgres_url",
        lambda url: plain(url, isolation_level="AUTOCOMMIT"),
    ),
    "postgresql-serializable": (
        "postgres_url",
        lambda url: plain(url, isolation_level="SERIALIZABLE"),
    ),
    "postgresql-null-pool": ("postgres_url", lambda url: plain(url, poolclass=NullPool)),
    "postgresql-lossy-json": (
        "postgres_url",
        lambda url: plain(url, json_serializer=lossy_dumps, json_deserializer=lossy_loads),
    ),
}


@pytest.fixture
def memory_url() -> str:
    return "sqlite://"


@pytest.fixture(params=ENGINES)
def unopened_engine(request: pytest.FixtureRequest) -> AsyncEngine:
    """Engines of many kinds, as callers have them."""
    url, make = ENGINES[request.param]
    return make(request.getfixturevalue(url))


@pytest.fixture
async def engine(unopened_engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    yield unopened_engine
    await unopened_engine.dispose()


async def test_a_callers_engine_loses_nothing(engine: AsyncEngine) -> None:
    """With any JSON functions and any isolation level of the engine."""
    async with SqlWorkflowStore(engine) as store:
        created = run(input=HOSTILE, context=HOSTILE)
        upserted = step(result=HOSTILE, error="\0\ud800")
        await store.create_run(created)
        await store.upsert_step("r", upserted)
        found = await store.get_run("r")
        assert found is not None
        assert repr(found) == repr(created)
        assert repr(await store.get_step("r", "s")) == repr(upserted)
        assert repr(await store.list_steps("r")) == repr([upserted])
        await store.update_context("r", [HOSTILE])
        found = await store.get_run("r")
        assert found is not None
        assert repr(found.context) == repr([HOSTILE])
    async with SqlWorkflowStore(engine) as store:
        assert repr(await store.get_step("r", "s")) == repr(upserted)


async def test_a_callers_engine_serves_many_tasks_at_once(engine: AsyncEngine) -> None:
    """No write is lost or half, and each is there for its task as soon as it returned."""
    async with SqlWorkflowStore(engine) as store:

        async def write(task: int) -> None:
            run_task_id = f"r{task}"
            await store.create_run(run(run_task_id))
            for number in range(5):
                await store.upsert_step(run_task_id, step(f"s{number}"))
                assert await store.get_step(run_task_id, f"s{number}") == step(f"s{number}")
                await store.update_context(run_task_id, number)
            assert len(await store.list_steps(run_task_id)) == 5

        async with asyncio.TaskGroup() as group:
            for task in range(12):
                group.create_task(write(task))
        for task in range(12):
            found = await store.get_run(f"r{task}")
            assert found is not None
            assert found.context == 4


async def test_on_a_callers_engine_runs_are_listed_claimed_and_purged(engine: AsyncEngine) -> None:
    """In transactions of several statements, whatever way of beginning its owner has chosen."""
    async with SqlWorkflowStore(engine) as store:
        created = [run(f"r{number}") for number in range(3)]
        for each in created:
            await store.create_run(each)
        claim = await store.claim_run("r0", owner="me", lease_s=0.001)
        assert claim is not None
        await asyncio.sleep(0.01)
        (taken,) = await store.claim_abandoned_runs(owner="other")
        assert (taken.run_task_id, taken.owner) == ("r0", "other")
        with pytest.raises(ClaimLostError):
            await store.fenced(claim).upsert_step("r0", step())
        await store.release_claim(await store.renew_claim(taken))
        await store.commit_step("r1", step(wait_task_id="w"), {})
        found = await store.find_waiting_step("w")
        assert found is not None
        assert found.run_task_id == "r1"
        assert len((await store.list_runs()).runs) == 3
        newest = max(each.created_at for each in created)
        assert await store.purge_runs(created_before=newest + timedelta(seconds=1)) == 2
        (left,) = (await store.list_runs(step_status=TaskStatus.PENDING)).runs
        assert left.run_task_id == "r1"
    if isinstance(engine.pool, AsyncAdaptedQueuePool):
        assert engine.pool.checkedout() == 0


async def test_on_a_callers_engine_a_call_that_fails_leaves_no_lock(engine: AsyncEngine) -> None:
    """Other connections may write at once, whatever the engine skips when it takes one back."""
    async with SqlWorkflowStore(engine) as store:
        with pytest.raises(RunNotFoundError):
            await store.claim_run("none", owner="me")
        if engine.url.database not in {None, "", ":memory:"}:
            async with SqlWorkflowStore(engine.url) as other:
                await other.create_run(run())
                assert await store.claim_run("r", owner="me")


async def test_on_a_callers_engine_no_step_outlives_its_run(engine: AsyncEngine) -> None:
    """Also where the connection does not enforce foreign keys, and when both race."""
    async with SqlWorkflowStore(engine) as store:
        with pytest.raises(RunNotFoundError):
            await store.upsert_step("r", step())

        async def upsert(number: int) -> None:
            with contextlib.suppress(RunNotFoundError):
                await store.upsert_step("r", step(f"s{number}"))

        for _ in range(5):
            await store.create_run(run())
            await store.upsert_step("r", step())
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(upsert(number))
                group.create_task(store.delete_run("r"))
            assert await store.list_steps("r") == []
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT count(*) FROM steps")) == 0


async def test_a_callers_engine_is_neither_disposed_nor_held(engine: AsyncEngine) -> None:
    """After the store was closed, the owner goes on with the same pool."""
    pool = engine.pool
    async with SqlWorkflowStore(engine) as store:
        await store.create_run(run())
    assert engine.pool is pool
    if isinstance(pool, AsyncAdaptedQueuePool):
        assert pool.checkedout() == 0
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM runs")) == 1


async def settings(connection: AsyncConnection) -> dict[str, object]:
    """Return the settings of a connection."""
    if connection.dialect.name == "sqlite":
        names = ("foreign_keys", "synchronous", "journal_mode", "busy_timeout", "cache_size")
        found: dict[str, object] = {
            name: await connection.scalar(text(f"PRAGMA {name}")) for name in names
        }
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        return found | {"isolation_level": raw.driver_connection.isolation_level}
    rows = await connection.execute(text("SELECT name, setting FROM pg_settings"))
    return {name: setting for name, setting in rows}  # noqa: C416 - rows are not typed as pairs


def set_on_postgresql(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET lock_timeout = '12345ms'")
        cursor.execute("SET statement_timeout = '54321ms'")
        cursor.execute("SET TIME ZONE 'Asia/Kathmandu'")
        cursor.close()
        connection.commit()


@pytest.mark.parametrize("migrated", [True, False])
async def test_a_callers_engine_is_not_configured(empty_url: str, migrated: bool) -> None:
    """Its one connection is set after the store's work, migration and all, as before."""
    if migrated:
        await migrate.upgrade(empty_url)
        if empty_url.startswith("sqlite"):
            await execute(empty_url, "PRAGMA journal_mode=DELETE")
    engine = plain(empty_url, pool_size=1, max_overflow=0)
    if empty_url.startswith("postgres"):
        set_on_postgresql(engine)
    try:
        async with engine.connect() as connection:
            before = await settings(connection)
        async with SqlWorkflowStore(engine, migrate=True) as store:
            await store.create_run(run(context=HOSTILE))
            await store.upsert_step("r", step())
            for call in calls(store).values():
                await call()
        async with engine.connect() as connection:
            after = await settings(connection)
        # PostgreSQL's procedural language, which a migration uses, brings settings of its own.
        assert {name: after[name] for name in before} == before
    finally:
        await engine.dispose()


async def test_times_are_kept_where_a_callers_session_has_another_time_zone(
    postgres_url: str,
) -> None:
    engine = plain(postgres_url)
    set_on_postgresql(engine)
    created = run()
    async with SqlWorkflowStore(engine) as store:
        await store.create_run(created)
        assert await store.get_run("r") == created
    await engine.dispose()


async def test_options_with_a_callers_engine_are_refused(sqlite_url: str) -> None:
    """The engine is the caller's to configure; the message names the options."""
    engine = plain(sqlite_url)
    with pytest.raises(ValueError, match="pool_size"):
        SqlWorkflowStore(engine, pool_size=5)
    with pytest.raises(ValueError, match="busy_timeout_s"):
        SqlWorkflowStore(engine, busy_timeout_s=5)
    await engine.dispose()


async def test_a_failure_on_a_callers_engine_tells_no_secret(postgres_url: str) -> None:
    """An engine that shows its parameters, and errors that quote them."""
    engine = plain(postgres_url)
    async with SqlWorkflowStore(engine) as store:
        await store.create_run(run())
        await execute(postgres_url, "ALTER TABLE steps ADD CONSTRAINT c CHECK (status = 'x')")
        try:
            error = await fails(store.upsert_step("r", step()), WorkflowStoreError, "23514")
            assert PAYLOAD in str(error.__cause__)  # so the test could have failed
        finally:
            await execute(postgres_url, "ALTER TABLE steps DROP CONSTRAINT c")
    await engine.dispose()


# -- the store's own settings on SQLite --------------------------------------------------


@pytest.mark.parametrize(("option", "expected"), [(None, 2), ("FULL", 2), ("NORMAL", 1)])
async def test_each_connection_of_our_own_has_the_settings_that_durability_needs(
    sqlite_url: str, option: Any, expected: int
) -> None:
    """Write-ahead log, full sync unless asked otherwise, foreign keys: on all of the pool."""
    options = {} if option is None else {"synchronous": option}
    async with SqlWorkflowStore(sqlite_url, pool_size=3, busy_timeout_s=7, **options) as store:
        assert store.engine is not None
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                connection = await stack.enter_async_context(store.engine.connect())
                assert await settings(connection) | {"cache_size": 0} == {
                    "foreign_keys": 1,
                    "synchronous": expected,
                    "journal_mode": "wal",
                    "busy_timeout": 7000,
                    "cache_size": 0,
                    "isolation_level": None,
                }
            assert checked_out(store) == 3


async def test_the_tables_of_our_own_file_refuse_a_step_without_a_run(sqlite_url: str) -> None:
    """Foreign keys keep the promise for other writers, too."""
    async with SqlWorkflowStore(sqlite_url):
        database = sqlite3.connect(path_of(sqlite_url))
        database.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(
                "INSERT INTO steps (run_task_id, step_id, status) VALUES ('x', 's', 'pending')"
            )
        database.close()
