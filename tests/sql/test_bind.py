"""The seven methods inside a transaction of a host application, together with its own rows."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from support.cancellation import cancelled, settled, some_delay
from support.engines import plain
from support.failures import execute
from support.host_transactions import (
    ORDERS,
    TRANSACTIONAL,
    WITH_SAVEPOINTS,
    Host,
    calls,
    order,
    statements,
)
from support.processes import count
from workflow_store import (
    SqlWorkflowStore,
    TaskStatus,
    WorkflowStore,
)
from workflow_store.testing import a_run, a_step
from workflow_store.testing.samples import HOSTILE_VALUES, exact


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_what_is_written_stands_or_falls_with_the_hosts_transaction(
    host: Host, end: str
) -> None:
    """All seven see the writes of the transaction; other connections do not."""
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
