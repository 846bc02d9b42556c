"""The seven methods inside a transaction of a host application's own, with its own rows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import asyncpg
import pytest
from sqlalchemy import column, event, make_url, table, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from support.cancellation import cancelled, settled, some_delay
from support.engines import lossy_dumps, lossy_loads, plain, recipe
from support.failures import execute, locked
from support.processes import count, orphans, query
from support.schema import ODD_SCHEMA
from support.waiting import until
from workflow_store import (
    InvalidStateError,
    RunNotFoundError,
    SqlWorkflowStore,
    StoreClosedError,
    StoreUnavailableError,
    TaskStatus,
    WorkflowStore,
    WorkflowStoreError,
)
from workflow_store.testing import a_run, a_step
from workflow_store.testing.samples import FOREIGN_VALUES, HOSTILE_VALUES, exact

ORDERS = table("orders", column("id"), column("note"))


class Host(NamedTuple):
    """A program with an engine and a table of its own, and a store beside them.

    The store has connections of its own, through which nothing is seen before a commit.
    """

    url: str
    engine: AsyncEngine
    store: SqlWorkflowStore

    async def orders(self) -> list[int]:
        """The host's rows as others see them."""
        return [number for (number,) in await query(self.url, "SELECT id FROM orders ORDER BY id")]


class Kind(NamedTuple):
    """How a host makes its engine, and where it has the tables."""

    fixture: str
    make: Callable[[str], AsyncEngine]
    schema: str | None = None


TRANSACTIONAL = {
    "sqlite": Kind("sqlite_url", plain),
    "sqlite-begin": Kind("sqlite_url", lambda url: recipe(url, "BEGIN")),
    "sqlite-begin-immediate": Kind("sqlite_url", lambda url: recipe(url, "BEGIN IMMEDIATE")),
    "postgresql": Kind("postgres_url", plain),
    "postgresql-schema": Kind("empty_postgres_url", plain, ODD_SCHEMA),
    "postgresql-lossy-json": Kind(
        "postgres_url",
        lambda url: plain(url, json_serializer=lossy_dumps, json_deserializer=lossy_loads),
    ),
}
KINDS = TRANSACTIONAL | {
    "sqlite-autocommit": Kind("sqlite_url", lambda url: plain(url, isolation_level="AUTOCOMMIT")),
}
WITH_SAVEPOINTS = [name for name in TRANSACTIONAL if name != "sqlite"]
"""The driver of SQLite, by itself, begins no transaction before a savepoint."""


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


async def order(connection: AsyncConnection, number: int) -> None:
    """Write a row of the host's own."""
    await connection.execute(ORDERS.insert().values(id=number, note="of the host"))


def calls(store: WorkflowStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """Each of the seven, as it would succeed on a run `run` with a step `step`."""
    return {
        "create_run": lambda: store.create_run(a_run()),
        "get_run": lambda: store.get_run("run"),
        "update_context": lambda: store.update_context("run", "new"),
        "upsert_step": lambda: store.upsert_step("run", a_step(result="new")),
        "get_step": lambda: store.get_step("run", "step"),
        "list_steps": lambda: store.list_steps("run"),
        "delete_run": lambda: store.delete_run("gone"),
    }


# -- together with the host's rows -----------------------------------------------------


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_what_is_written_stands_or_falls_with_the_hosts_transaction(
    host: Host, end: str
) -> None:
    """All seven see what was written before in the transaction; nobody else does."""
    store = host.store
    await store.create_run(a_run("old"))
    await store.upsert_step("old", a_step())
    connection = await host.engine.connect()
    try:
        bound = store.bind(connection)
        run, first, second = a_run(input=[1, 1.0]), a_step("z", result={"n": -0.0}), a_step("a")
        await bound.create_run(run)
        await order(connection, 1)
        assert await bound.get_run("run") == run
        await bound.upsert_step("run", first)
        await bound.upsert_step("run", second)
        await bound.upsert_step("run", first.model_copy(update={"error": "later"}))
        await order(connection, 2)
        await bound.update_context("run", {"n": 1})
        await bound.update_context("run", {"n": 2})
        await bound.delete_run("old")
        await bound.delete_run("never there")
        found = await bound.get_run("run")
        assert found is not None
        assert found.context == {"n": 2}
        assert found.updated_at > run.updated_at
        steps = await bound.list_steps("run")
        assert [(step.step_id, step.error) for step in steps] == [("z", "later"), ("a", None)]
        assert await bound.get_step("run", "a") == second
        assert await bound.get_run("old") is None
        assert await bound.list_steps("old") == []
        assert (await connection.execute(ORDERS.select())).all() == [
            (1, "of the host"),
            (2, "of the host"),
        ]

        assert await store.get_run("run") is None
        assert await store.list_steps("run") == []
        assert await store.get_run("old") is not None
        assert await host.orders() == []
        if end == "commit":
            await connection.commit()
        elif end == "rollback":
            await connection.rollback()
    finally:
        await connection.close()
    kept = end == "commit"
    assert await host.orders() == ([1, 2] if kept else [])
    assert await store.get_run("run") == (found if kept else None)
    assert await store.list_steps("run") == (steps if kept else [])
    assert (await store.get_run("old") is None) == kept
    assert len(await store.list_steps("old")) == (not kept)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("url_and_kind", TRANSACTIONAL, indirect=True)
async def test_rows_that_the_host_wrote_before_stand_or_fall_with_the_step(
    host: Host, end: str
) -> None:
    """The view joins a transaction that has begun, and goes on with the next one."""
    await host.store.create_run(a_run())
    async with host.engine.connect() as connection:
        bound = host.store.bind(connection)
        for number in range(3):
            await order(connection, number)
            await bound.upsert_step("run", a_step(f"{number}"))
            await (connection.commit() if end == "commit" else connection.rollback())
            expected = list(range(number + 1)) if end == "commit" else []
            assert await host.orders() == expected
            steps = await host.store.list_steps("run")
            assert [int(step.step_id) for step in steps] == expected


@pytest.mark.parametrize("url_and_kind", WITH_SAVEPOINTS, indirect=True)
async def test_a_savepoint_of_the_hosts_takes_back_what_was_written_inside_alone(
    host: Host,
) -> None:
    """The host's savepoints hold the view's writes like its own."""
    async with host.engine.begin() as connection:
        bound = host.store.bind(connection)
        await bound.create_run(a_run())
        await order(connection, 1)
        savepoint = await connection.begin_nested()
        await bound.upsert_step("run", a_step("taken back"))
        await order(connection, 2)
        await savepoint.rollback()
        async with connection.begin_nested():
            await bound.upsert_step("run", a_step("kept"))
            await order(connection, 3)
    assert await host.orders() == [1, 3]
    assert [step.step_id for step in await host.store.list_steps("run")] == ["kept"]


@pytest.mark.parametrize("url_and_kind", TRANSACTIONAL, indirect=True)
async def test_a_step_commits_with_a_session_of_the_hosts(host: Host) -> None:
    """The connection of an `AsyncSession` is a connection like any other."""
    await host.store.create_run(a_run())
    for number in range(2):
        async with AsyncSession(host.engine) as session:
            await session.execute(ORDERS.insert().values(id=number))
            bound = host.store.bind(await session.connection())
            await bound.upsert_step("run", a_step(f"{number}"))
            if number == 1:
                await session.commit()
    assert await host.orders() == [1]
    assert [step.step_id for step in await host.store.list_steps("run")] == ["1"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_run_is_deleted_with_its_steps_and_its_claim_or_not_at_all(
    host: Host, end: str
) -> None:
    """Also on a connection to SQLite that enforces no foreign keys."""
    await host.store.create_run(a_run())
    await host.store.upsert_step("run", a_step())
    claim = await host.store.claim_run("run", owner="me", lease_s=3600)
    assert claim is not None
    async with host.engine.connect() as connection:
        await host.store.bind(connection).delete_run("run")
        await (connection.commit() if end == "commit" else connection.rollback())
    there = end == "rollback"
    assert (await host.store.load_run("run") is not None) == there
    await host.store.create_run(a_run())
    assert len(await host.store.list_steps("run")) == there
    assert (await host.store.claim_run("run", owner="other") is None) == there


async def test_a_run_keeps_its_steps_and_its_claim_when_it_is_created_again(host: Host) -> None:
    """Create or resume, as ever."""
    await host.store.create_run(a_run(context="old"))
    await host.store.upsert_step("run", a_step())
    claim = await host.store.claim_run("run", owner="me", lease_s=3600)
    assert claim is not None
    async with host.engine.connect() as connection:
        await host.store.bind(connection).create_run(a_run(context="new"))
        await connection.commit()
    await host.store.renew_claim(claim)
    snapshot = await host.store.load_run("run")
    assert snapshot is not None
    assert snapshot.run.context == "new"
    assert len(snapshot.steps) == 1


@pytest.mark.parametrize("name", HOSTILE_VALUES)
async def test_hostile_values_come_back_as_they_went_in(host: Host, name: str) -> None:
    """To the view, and to everybody after the commit."""
    value = HOSTILE_VALUES[name]
    run = a_run("r'\"%s:x", definition={"z": 1.0, "a": -0.0}, input=value, workspace_id="é\x01")
    step = a_step(":s %(x)s ?", result=value, error="\0\ud800", status=TaskStatus.FAILED)
    async with host.engine.connect() as connection:
        bound = host.store.bind(connection)
        await bound.create_run(run)
        await bound.update_context(run.run_task_id, value)
        await bound.upsert_step(run.run_task_id, step)

        async def check(store: WorkflowStore) -> None:
            found = await store.get_run(run.run_task_id)
            assert found is not None
            assert exact(found.definition) == exact(run.definition)
            assert exact(found.input) == exact(found.context) == exact(value)
            assert found.created_at == run.created_at
            assert found.workspace_id == run.workspace_id
            found_step = await store.get_step(run.run_task_id, step.step_id)
            assert found_step is not None
            assert found_step.model_dump_json() == step.model_dump_json()
            assert await store.list_steps(run.run_task_id) == [found_step]

        await check(bound)
        await connection.commit()
    await check(host.store)


async def test_a_hosts_table_of_the_same_name_as_one_in_a_schema_is_left_alone(
    empty_postgres_url: str,
) -> None:
    """The view finds the store's tables wherever the connection itself looks."""
    await execute(empty_postgres_url, "CREATE TABLE runs (run_task_id TEXT)")
    engine = plain(empty_postgres_url)
    async with SqlWorkflowStore(empty_postgres_url, schema="ours", migrate=True) as store:
        async with engine.begin() as connection:
            bound = store.bind(connection)
            await bound.create_run(a_run())
            await bound.upsert_step("run", a_step())
            await connection.execute(text("INSERT INTO runs VALUES ('run')"))
            await bound.delete_run("other")
        assert await store.get_run("run") is not None
        async with engine.begin() as connection:
            await store.bind(connection).delete_run("run")
        assert await store.get_run("run") is None
    assert await count(empty_postgres_url, "runs") == 1
    await engine.dispose()


# -- what is refused -------------------------------------------------------------------


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
    """The foreign key tells, when the deletion commits; the transaction goes on."""
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
    """Make sure that an error is ours, has a cause, and tells no secret."""
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
    """Whatever the host did before in the transaction."""
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


def statements(engine: AsyncEngine) -> list[str]:
    """A list of what goes to the database from now on, commits among it."""
    seen: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(_: Any, __: Any, sql: str, *___: Any) -> None:
        seen.append(sql)

    @event.listens_for(engine.sync_engine, "commit")
    def note_commit(_: Any) -> None:
        seen.append("COMMIT")

    return seen


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


# -- the connection stays the host's ---------------------------------------------------


async def test_nothing_is_committed_and_the_connection_is_as_it_was(host: Host) -> None:
    """Neither its options nor its transaction, nor which connection it is."""
    async with host.engine.connect() as connection:
        assert connection.sync_connection is not None
        raw = (await connection.get_raw_connection()).driver_connection
        options = dict(connection.sync_connection.get_execution_options())
        isolation_level = await connection.get_isolation_level()
        bound = host.store.bind(connection)
        seen = statements(host.engine)
        for call in calls(bound).values():
            await call()
        assert "COMMIT" not in seen
        assert not any(sql.startswith("ROLLBACK") and "TO" not in sql for sql in seen)
        assert not connection.closed
        assert connection.in_transaction()
        assert not connection.in_nested_transaction()
        assert (await connection.get_raw_connection()).driver_connection is raw
        assert dict(connection.sync_connection.get_execution_options()) == options
        assert await connection.get_isolation_level() == isolation_level
        assert host.engine.pool.checkedout() == 1  # type: ignore[attr-defined] # QueuePool has it
        await connection.commit()
        assert seen.count("COMMIT") == 1
    assert host.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(await host.store.list_steps("run")) == 1


@pytest.mark.parametrize("url_and_kind", ["postgresql", "postgresql-schema"], indirect=True)
async def test_a_cancelled_call_leaves_nothing_behind_but_the_hosts_to_roll_back(
    host: Host,
) -> None:
    """At any moment; the host's pool and the store are as good as before.

    On SQLite, SQLAlchemy drops a connection whose own statement is cancelled without closing
    it, which holds its lock for a while; no view can help that.
    """
    await host.store.create_run(a_run())
    for number in range(30):
        async with host.engine.connect() as connection:
            bound = host.store.bind(connection)
            await bound.upsert_step("run", a_step(f"before {number}"))
            await order(connection, number)
            call = random.choice(list(calls(bound).values()))
            await cancelled(call(), some_delay())
            await connection.rollback()
        await settled()
        assert host.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await host.orders() == []
        assert await host.store.list_steps("run") == []
    async with host.engine.begin() as connection:
        await host.store.bind(connection).upsert_step("run", a_step())
        await order(connection, 1)
    assert await host.orders() == [1]
    assert len(await host.store.list_steps("run")) == 1


async def test_several_views_of_one_store_each_write_in_their_own_transaction(
    postgres_url: str,
) -> None:
    """One goes back, the others stay; the store itself writes beside them."""
    engine = plain(postgres_url)
    async with SqlWorkflowStore(postgres_url) as store:
        await store.create_run(a_run())

        async def write(number: int) -> None:
            async with engine.connect() as connection:
                bound = store.bind(connection)
                for part in range(5):
                    await bound.upsert_step("run", a_step(f"{number}-{part}"))
                    await store.upsert_step("run", a_step(f"store-{number}-{part}"))
                await (connection.rollback() if number == 2 else connection.commit())

        await asyncio.gather(*map(write, range(5)))
        found = {step.step_id for step in await store.list_steps("run")}
        assert found == {
            f"{writer}{number}-{part}"
            for writer in ("", "store-")
            for number in range(5)
            for part in range(5)
            if writer or number != 2
        }
    await engine.dispose()
