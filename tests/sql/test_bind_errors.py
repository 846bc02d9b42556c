"""Errors of the seven methods inside a transaction of a host application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from support.engines import plain, recipe
from support.failures import execute, locked
from support.host_transactions import Host, Kind, calls, order, statements
from support.processes import orphans
from support.waiting import until
from workflow_store import (
    InvalidStateError,
    RunNotFoundError,
    SqlWorkflowStore,
    StoreClosedError,
    StoreUnavailableError,
    WorkflowStoreError,
)
from workflow_store.testing import a_run, a_step
from workflow_store.testing.samples import FOREIGN_VALUES


async def test_what_is_refused_leaves_the_transaction_usable(host: Host) -> None:
    """A run that is not there and a value that is no state, after the host's rows and before."""
    foreign, _ = FOREIGN_VALUES["NaN"]
    async with host.engine.connect() as connection:
        bound = host.store.bind(connection)
        await bound.create_run(a_run())
        await order(connection, 0)
        missing: list[Awaitable[object]] = [
            bound.update_context("none", {}),
            bound.upsert_step("none", a_step()),
        ]
        for call in missing:
            with pytest.raises(RunNotFoundError) as caught:
                await call
            assert caught.value.run_task_id == "none"
        bad: Any = None
        refused: list[Awaitable[object]] = [
            bound.create_run(a_run(context=foreign)),
            bound.create_run(bad),
            bound.update_context("run", foreign),
            bound.update_context("", {}),
            bound.upsert_step("run", a_step(result=foreign)),
            bound.upsert_step("run", bad),
            bound.get_run("\0"),
            bound.get_step("run", ""),
            bound.list_steps(bad),
            bound.delete_run("x" * 1025),
        ]
        for call in refused:
            with pytest.raises(InvalidStateError):
                await call
        await order(connection, 1)
        await bound.upsert_step("run", a_step("after"))
        assert [step.step_id for step in await bound.list_steps("run")] == ["after"]
        await connection.commit()
    assert await host.orders() == [0, 1]
    assert [step.step_id for step in await host.store.list_steps("run")] == ["after"]


async def test_a_run_that_goes_while_its_step_is_written_is_not_found_and_nothing_else(
    postgres_url: str,
) -> None:
    """The foreign key fails when the deletion commits; the transaction stays usable."""
    engine = plain(postgres_url)
    async with SqlWorkflowStore(postgres_url) as store:
        await store.create_run(a_run())
        await store.create_run(a_run("other"))
        other = await asyncpg.connect(postgres_url)
        async with engine.begin() as connection:
            bound = store.bind(connection)
            await bound.upsert_step("other", a_step("before"))
            deletion = other.transaction()
            await deletion.start()
            await other.execute("DELETE FROM runs WHERE run_task_id = 'run'")
            late = asyncio.ensure_future(bound.upsert_step("run", a_step()))

            async def waits() -> bool:
                return bool(await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await until(waits)
            await deletion.commit()
            with pytest.raises(RunNotFoundError):
                await late
            await bound.upsert_step("other", a_step("after"))
        await other.close()
        steps = await store.list_steps("other")
        assert [step.step_id for step in steps] == ["before", "after"]
        assert await orphans(postgres_url) == []
    await engine.dispose()


async def test_a_closed_store_refuses_and_leaves_the_connection_to_the_host(host: Host) -> None:
    """Opening or closing the view does nothing; it is open as long as the store is."""
    async with host.engine.connect() as connection:
        bound = host.store.bind(connection)
        async with bound as entered:
            assert entered is bound
            await bound.create_run(a_run())
        await bound.upsert_step("run", a_step())
        await host.store.close()
        await bound.open()
        for call in calls(bound).values():
            with pytest.raises(StoreClosedError):
                await call()
        await order(connection, 1)
        await connection.commit()
        unopened = SqlWorkflowStore(host.url).bind(connection)
        for call in calls(unopened).values():
            with pytest.raises(StoreClosedError):
                await call()
        await host.store.open()
        assert await bound.get_step("run", "step") == a_step()
    assert await host.orders() == [1]


async def test_a_connection_to_another_kind_of_database_is_refused(
    sqlite_url: str, postgres_url: str
) -> None:
    """At once, by `bind` itself; the store need not be open."""
    for url, of_another in ((sqlite_url, postgres_url), (postgres_url, sqlite_url)):
        engine = plain(of_another)
        async with engine.connect() as connection:
            with pytest.raises(ValueError, match="connection") as caught:
                SqlWorkflowStore(url).bind(connection)
            assert not isinstance(caught.value, SQLAlchemyError)
            SqlWorkflowStore(of_another).bind(connection)
        await engine.dispose()


# -- what fails ------------------------------------------------------------------------


def check(error: WorkflowStoreError, expected: type[WorkflowStoreError], url: str) -> None:
    """Assert that an error is ours, has a cause, and contains no secret."""
    assert type(error) is expected
    assert error.__cause__ is not None
    assert "password" not in str(error).lower()
    assert str(make_url(url).database) in str(error)


@pytest.mark.parametrize("call", calls(SqlWorkflowStore("sqlite://")))
@pytest.mark.parametrize(
    "url_and_kind", ["sqlite", "sqlite-begin", "postgresql-schema"], indirect=True
)
async def test_a_table_that_is_gone_is_our_error_and_after_a_write_the_transaction_goes_on(
    host: Host, url_and_kind: tuple[str, Kind], call: str
) -> None:
    """A read that fails ends it on PostgreSQL, as any statement of the host's own does."""
    schema = url_and_kind[1].schema
    prefix = f'"{schema}".' if schema else ""
    for name in ("claims", "steps", "runs"):
        await execute(host.url, f"ALTER TABLE {prefix}{name} RENAME TO {name}_elsewhere")
    try:
        async with host.engine.connect() as connection:
            await order(connection, 1)
            with pytest.raises(WorkflowStoreError) as caught:
                await calls(host.store.bind(connection))[call]()
            check(caught.value, WorkflowStoreError, host.url)
            ended = schema is not None and call in {"get_run", "get_step", "list_steps"}
            if ended:
                await connection.rollback()
            await order(connection, 2)
            await connection.commit()
        assert await host.orders() == ([2] if ended else [1, 2])
    finally:
        for name in ("claims", "steps", "runs"):
            await execute(host.url, f"ALTER TABLE {prefix}{name}_elsewhere RENAME TO {name}")


@pytest.mark.parametrize("call", calls(SqlWorkflowStore("sqlite://")))
async def test_a_connection_that_the_host_has_closed_is_our_error(host: Host, call: str) -> None:
    """And the store itself is as good as before."""
    async with host.engine.connect() as connection:
        bound = host.store.bind(connection)
        await bound.get_run("run")
    with pytest.raises(WorkflowStoreError) as caught:
        await calls(bound)[call]()
    check(caught.value, WorkflowStoreError, host.url)
    await host.store.create_run(a_run())


@pytest.mark.parametrize("call", calls(SqlWorkflowStore("sqlite://")))
async def test_a_transaction_that_has_failed_and_a_server_that_hangs_up_are_our_errors(
    postgres_url: str, call: str
) -> None:
    """Independent of earlier statements of the host in the transaction."""
    engine = plain(postgres_url)
    async with SqlWorkflowStore(postgres_url) as store:
        async with engine.connect() as connection:
            with pytest.raises(SQLAlchemyError):
                await connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(WorkflowStoreError) as caught:
                await calls(store.bind(connection))[call]()
            check(caught.value, WorkflowStoreError, postgres_url)
        async with engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await execute(postgres_url, f"SELECT pg_terminate_backend({pid}, 10000)")
            with pytest.raises(StoreUnavailableError) as caught:
                await calls(store.bind(connection))[call]()
            check(caught.value, StoreUnavailableError, postgres_url)
        await store.create_run(a_run())
    await engine.dispose()


async def test_a_write_where_there_is_no_transaction_is_our_error(postgres_url: str) -> None:
    """A connection that commits each statement by itself has none that it could be part of."""
    engine = plain(postgres_url, isolation_level="AUTOCOMMIT")
    async with SqlWorkflowStore(postgres_url) as store, engine.connect() as connection:
        bound = store.bind(connection)
        with pytest.raises(WorkflowStoreError) as caught:
            await bound.create_run(a_run())
        check(caught.value, WorkflowStoreError, postgres_url)
        assert await bound.get_run("run") is None
        assert await store.get_run("run") is None
    await engine.dispose()


async def test_a_conflict_is_told_to_the_host_and_not_tried_again(postgres_url: str) -> None:
    """Another try in the same transaction could never succeed; that is the host's to begin."""
    engine = plain(postgres_url, isolation_level="REPEATABLE READ")
    async with SqlWorkflowStore(postgres_url) as store:
        await store.create_run(a_run())
        async with engine.connect() as connection:
            bound = store.bind(connection)
            await bound.get_run("run")
            await store.update_context("run", "of another")
            seen = statements(engine)
            with pytest.raises(StoreUnavailableError) as caught:
                await bound.update_context("run", "late")
            check(caught.value, StoreUnavailableError, postgres_url)
            assert sum(sql.startswith("UPDATE") for sql in seen) == 1
            await bound.create_run(a_run("other"))
            await connection.commit()
            await bound.update_context("run", "again")
            await connection.commit()
        found = await store.get_run("run")
        assert found is not None
        assert found.context == "again"
        assert await store.get_run("other") is not None
    await engine.dispose()


async def test_an_old_snapshot_on_sqlite_is_told_to_the_host_and_not_tried_again(
    sqlite_url: str,
) -> None:
    """A transaction that has read cannot write after another one wrote."""
    engine = recipe(sqlite_url, "BEGIN")
    async with SqlWorkflowStore(sqlite_url) as store:
        await store.create_run(a_run())
        async with engine.connect() as connection:
            bound = store.bind(connection)
            await bound.get_run("run")
            await store.update_context("run", "of another")
            seen = statements(engine)
            with pytest.raises(StoreUnavailableError) as caught:
                await bound.update_context("run", "late")
            check(caught.value, StoreUnavailableError, sqlite_url)
            assert sum(sql.startswith("UPDATE") for sql in seen) == 1
            assert await bound.get_run("run") is not None
            await connection.rollback()
            await bound.update_context("run", "again")
            await connection.commit()
        found = await store.get_run("run")
        assert found is not None
        assert found.context == "again"
    await engine.dispose()


@pytest.mark.parametrize("begin", [None, "BEGIN", "AUTOCOMMIT"])
async def test_a_lock_that_stays_taken_is_our_error(sqlite_url: str, begin: str | None) -> None:
    """For as long as the host's own engine waits for a lock."""
    options = {"isolation_level": "AUTOCOMMIT"} if begin == "AUTOCOMMIT" else {}
    engine = recipe(sqlite_url, begin) if begin == "BEGIN" else plain(sqlite_url, **options)
    async with SqlWorkflowStore(sqlite_url) as store:
        await store.create_run(a_run())
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA busy_timeout=10")
            bound = store.bind(connection)
            async with locked(sqlite_url):
                for name in ("create_run", "update_context", "upsert_step", "delete_run"):
                    with pytest.raises(StoreUnavailableError) as caught:
                        await calls(bound)[name]()
                    check(caught.value, StoreUnavailableError, sqlite_url)
                assert await bound.get_run("run") is not None
            await connection.rollback()
            await bound.upsert_step("run", a_step())
            await connection.commit()
        assert len(await store.list_steps("run")) == 1
    await engine.dispose()
