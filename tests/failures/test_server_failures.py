"""Servers that fail, and the errors for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias
from urllib.parse import quote

import pytest
from sqlalchemy import URL, make_url

from support.databases import checked_out
from support.failures import (
    PASSWORD,
    READS,
    calls,
    execute,
    fails,
    impatient_store,
    locked,
    recovers,
    run,
    sessions,
    step,
    terminate,
)
from support.processes import orphans
from support.waiting import PATIENCE_S, until
from workflow_store import (
    RunNotFoundError,
    SqlWorkflowStore,
    StoreUnavailableError,
    WorkflowStoreError,
    open_store,
)
from workflow_store.sql import migrate


@pytest.fixture
def closed_port() -> int:
    """A port on which no server listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_refused_connection_is_unavailable_and_tells_no_password(
    closed_port: int,
) -> None:
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:{closed_port}/db"
    await fails(
        SqlWorkflowStore(url).open(), StoreUnavailableError, f"127.0.0.1:{closed_port}", "host"
    )
    await fails(migrate.upgrade(url), StoreUnavailableError, f"127.0.0.1:{closed_port}")


async def test_a_password_in_the_query_of_the_url_is_not_told_either(closed_port: int) -> None:
    url = (
        f"postgres://127.0.0.1:{closed_port}/db?user=me&password={PASSWORD}&sslpassword={PASSWORD}"
    )
    await fails(SqlWorkflowStore(url).open(), StoreUnavailableError)


async def test_a_password_with_an_at_sign_that_is_not_encoded_is_not_told_in_part(
    closed_port: int,
) -> None:
    """Such a URL names another host than was meant; the message does not show that host."""
    url = f"postgresql://me:begin@{PASSWORD}@127.0.0.1:{closed_port}/db"
    with pytest.raises((ValueError, StoreUnavailableError)) as caught:
        await SqlWorkflowStore(url).open()
    assert "S3CR3T" not in str(caught.value)


async def test_a_server_that_never_answers_is_unavailable_after_the_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/db"
        store = SqlWorkflowStore(url, connect_timeout_s=0.3)
        await fails(store.open(), StoreUnavailableError, "timed out")


Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(guarded, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 9999])
async def test_a_server_that_speaks_something_else_is_our_error(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()

    async with listening(handle) as port:
        store = SqlWorkflowStore(
            f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/db", connect_timeout_s=2
        )
        await fails(store.open(), StoreUnavailableError)


@pytest.mark.parametrize(
    "password", ["p@ss:w/rd%2F+ ?#[]&=%", "100%", "%40", "é\U0001f600", "a+b c", "'\"\\"]
)
@pytest.mark.parametrize("spell", ["encoded", "object"])
async def test_a_password_of_any_characters_reaches_the_server_as_it_is(
    password: str, spell: str
) -> None:
    """Percent-encoded in a string, or as part of SQLAlchemy's URL; an error does not contain it."""
    heard: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # https://www.postgresql.org/docs/current/protocol-message-formats.html
            size = int.from_bytes(await reader.readexactly(4), "big")
            request = await reader.readexactly(size - 4)
            if int.from_bytes(request[:4], "big") not in {80877103, 80877104}:
                break
            writer.write(b"N")  # neither TLS nor GSSAPI
        writer.write(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))  # in clear text
        assert await reader.readexactly(1) == b"p"
        size = int.from_bytes(await reader.readexactly(4), "big")
        heard.append((await reader.readexactly(size - 4))[:-1].decode())
        refusal = f"SFATAL\0C28P01\0M{PASSWORD} is wrong\0\0".encode()
        writer.write(b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal)
        await writer.drain()

    async with listening(handle) as port:
        url: str | URL
        if spell == "encoded":
            url = f"postgresql://me:{quote(password, safe='')}@127.0.0.1:{port}/db"
        else:
            url = URL.create("postgresql", "me", password, "127.0.0.1", port, "db")
        error = await fails(
            SqlWorkflowStore(url).open(), StoreUnavailableError, "28P01", "password"
        )
    assert heard == [password]
    assert quote(password, safe="") not in str(error)


async def test_a_database_that_does_not_exist_is_unavailable(postgres_url: str) -> None:
    url = make_url(postgres_url).set(database="no_such_database")
    await fails(SqlWorkflowStore(url).open(), StoreUnavailableError, "3D000", "no_such_database")
    await fails(migrate.upgrade(url), StoreUnavailableError, "3D000")


@contextlib.asynccontextmanager
async def role(url: str, attributes: str, *grants: str) -> AsyncIterator[URL]:
    """Yield the URL of a server user with some rights."""
    name = f"wfs_{uuid.uuid4().hex}"
    await execute(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}",
        *(grant.format(name) for grant in grants),
    )
    try:
        yield make_url(url).set(username=name, password=PASSWORD)
    finally:
        await execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


READ = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}"
WRITE = "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}"


async def test_a_user_that_does_not_exist_is_unavailable(postgres_url: str) -> None:
    url = make_url(postgres_url).set(username="nobody_here", password=PASSWORD)
    await fails(SqlWorkflowStore(url).open(), StoreUnavailableError, "user")


async def test_a_server_with_no_connection_left_is_unavailable(postgres_url: str) -> None:
    async with role(postgres_url, "CONNECTION LIMIT 0") as url:
        await fails(SqlWorkflowStore(url).open(), StoreUnavailableError, "53300")


async def test_a_database_that_takes_no_connections_is_unavailable(
    postgres_server: str, empty_postgres_url: str
) -> None:
    """As while an administrator works on it."""
    await migrate.upgrade(empty_postgres_url)
    name = make_url(empty_postgres_url).database
    await execute(postgres_server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    await fails(SqlWorkflowStore(empty_postgres_url).open(), StoreUnavailableError)
    await execute(postgres_server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    async with SqlWorkflowStore(empty_postgres_url) as store:
        await store.create_run(run())


async def test_a_missing_right_is_an_error_that_names_it(postgres_url: str) -> None:
    """Without the right to write, what may be read can be read."""
    async with open_store(postgres_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
    async with role(postgres_url, "", READ) as url, SqlWorkflowStore(url) as store:
        for name, call in calls(store).items():
            if name in READS:
                assert await call()
            else:
                await fails(call(), WorkflowStoreError, "42501", "lacks a privilege")


async def test_a_text_that_a_trigger_raises_is_not_shown(postgres_url: str) -> None:
    """A trigger may raise insufficient_privilege with a payload in its text."""
    raising = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'refused %', NEW.step_id USING ERRCODE = '42501'; END $$"
    )
    trigger = "CREATE TRIGGER refuse BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION refuse()"
    async with open_store(postgres_url) as store:
        await store.create_run(run())
        await execute(postgres_url, raising, trigger)
        try:
            with pytest.raises(WorkflowStoreError, match="insufficient privilege") as caught:
                await store.upsert_step("r", step(step_id="secret"))
            assert "secret" not in str(caught.value)
        finally:
            await execute(postgres_url, "DROP FUNCTION refuse CASCADE")


async def test_the_store_needs_no_right_to_define_tables(postgres_url: str) -> None:
    """Reading and writing rows is all that a run-time user must be granted."""
    async with role(postgres_url, "", READ, WRITE) as url, SqlWorkflowStore(url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        for call in calls(store).values():
            await call()


async def test_a_server_that_is_read_only_is_unavailable_for_writes(postgres_url: str) -> None:
    """As a standby is after a failover."""
    async with open_store(postgres_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
    read_only = "ALTER ROLE {} SET default_transaction_read_only = on"
    async with (
        role(postgres_url, "", READ, WRITE, read_only) as url,
        SqlWorkflowStore(url) as store,
    ):
        for name, call in calls(store).items():
            if name in READS:
                assert await call()
            else:
                await fails(call(), StoreUnavailableError, "25006", "primary")


@pytest.mark.slow
async def test_a_statement_that_runs_out_of_time_is_unavailable_until_the_lock_is_gone(
    postgres_url: str,
) -> None:
    async with open_store(postgres_url) as patient:
        await patient.create_run(run())
        await patient.upsert_step("r", step())
    async with impatient_store(postgres_url, statement_timeout_s=3) as store:
        async with locked(postgres_url, "steps"):
            await asyncio.gather(
                *(
                    fails(calls(store)[name](), StoreUnavailableError)
                    for name in ("upsert_step", "get_step", "list_steps")
                )
            )
            assert await recovers(lambda: store.get_run("r")) is not None
        for call in calls(store).values():
            await recovers(call)
        assert checked_out(store) == 0


async def test_a_lock_timeout_of_the_server_is_unavailable(postgres_url: str) -> None:
    limit = "ALTER ROLE {} SET lock_timeout = '200ms'"
    async with role(postgres_url, "", READ, WRITE, limit) as url, SqlWorkflowStore(url) as store:
        await store.create_run(run())
        async with locked(postgres_url):
            await fails(store.upsert_step("r", step()), StoreUnavailableError, "55P03")
        await store.upsert_step("r", step())


async def test_a_pool_without_a_free_connection_is_unavailable_until_one_is_free(
    database_url: str,
) -> None:
    """The message names the options that help."""
    async with open_store(database_url, pool_size=2, pool_timeout_s=0.2) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(run())
        async with store.engine.connect(), store.engine.connect():
            await fails(store.upsert_step("r", step()), StoreUnavailableError, "pool_size")
            await fails(store.get_run("r"), StoreUnavailableError, "pool_size")
        await store.upsert_step("r", step())
        assert await store.get_step("r", "s") == step()


async def test_connections_that_were_cut_while_idle_are_replaced_unseen(
    postgres_url: str,
) -> None:
    """The next call of each kind succeeds although every pooled connection is dead."""
    async with open_store(postgres_url, pool_size=5) as store:
        for name in calls(store):
            await store.create_run(run())
            await store.upsert_step("r", step())
            await asyncio.gather(*(store.get_run("r") for _ in range(20)))
            assert len(await sessions(postgres_url)) > 1
            await terminate(postgres_url)
            assert await sessions(postgres_url) == []
            await calls(store)[name]()
            await asyncio.gather(*(call() for call in calls(store).values()))
        assert await store.get_step("r", "s") == step()
        assert checked_out(store) == 0


async def test_connections_that_are_cut_during_calls_are_replaced_unseen(
    postgres_url: str,
) -> None:
    """All calls stand before a lock, their sessions are ended twice, and all succeed."""
    async with open_store(postgres_url, pool_size=4) as store:
        await store.create_run(run("gone"))
        await store.create_run(run())
        await store.upsert_step("r", step())

        async def waiting() -> bool:
            return bool(await sessions(postgres_url, that="wait_event_type = 'Lock'"))

        async with locked(postgres_url) as locker:
            under_way = {
                name: asyncio.create_task(_as_coroutine(call()))
                for name, call in calls(store).items()
            }
            for _ in range(2):
                await until(waiting)
                await terminate(postgres_url, but=locker)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*under_way.values())
        assert under_way["get_step"].result() == step()
        assert under_way["list_steps"].result() == [step()]
        assert await store.get_run("gone") is None
        assert await store.get_step("r", "s") == step()
        assert checked_out(store) == 0


async def _as_coroutine(call: Awaitable[object]) -> object:
    return await call


async def test_deadlocks_and_conflicts_between_calls_are_solved_unseen(database_url: str) -> None:
    """Many tasks create, write and delete the same few runs; none of them sees a failure."""
    async with open_store(database_url) as store:

        async def write(task: int) -> None:
            for number in range(15):
                run_task_id = f"r{(task + number) % 3}"
                await store.create_run(run(run_task_id))
                with contextlib.suppress(RunNotFoundError):
                    await store.upsert_step(run_task_id, step(f"s{number % 2}"))
                    await store.update_context(run_task_id, number)
                if number % 3 == 0:
                    await store.delete_run(run_task_id)

        async with asyncio.TaskGroup() as group:
            for task in range(10):
                group.create_task(write(task))
    assert await orphans(database_url) == []
