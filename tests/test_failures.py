"""Databases that fail, and engines and URLs that are the caller's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import socket
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from conftest import PATIENCE_S, checked_out, on_server, threads_ended, until
from workflow_store import (
    InMemoryWorkflowStore,
    InvalidStateError,
    RunNotFoundError,
    SchemaMismatchError,
    SqlWorkflowStore,
    StoreUnavailableError,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    WorkflowStoreError,
    open_store,
)
from workflow_store.sql import migrate

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
    """Each of the seven, as it would succeed on a run `r` with a step `s`."""
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
    """Make sure that an error is the one expected, has a cause and tells no secret."""
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
    """Change a database past the store."""
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


async def orphans(url: str) -> int:
    sql = "SELECT count(*) FROM steps WHERE run_task_id NOT IN (SELECT run_task_id FROM runs)"
    if url.startswith("sqlite"):
        database = sqlite3.connect(path_of(url))
        try:
            return int(database.execute(sql).fetchone()[0])
        finally:
            database.close()
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def locked(url: str, tables: str = "runs, steps") -> AsyncIterator[int]:
    """Hold what a write needs in another connection; gives its pid on PostgreSQL."""
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
    """End every other session of a database, as a restart or an administrator does."""
    pids = set(await sessions(url)) - {but}
    for pid in pids:
        await on_server(url, f"SELECT pg_terminate_backend({pid})")

    async def ended() -> bool:
        return pids.isdisjoint(await sessions(url))

    await until(ended)


# -- SQLite files that fail ------------------------------------------------------------


async def test_a_missing_folder_is_unavailable_and_says_what_to_check(tmp_path: Path) -> None:
    """The folder is not made."""
    threads = set(threading.enumerate())
    url = f"sqlite:///{tmp_path}/missing/store.db"
    await fails(SqlWorkflowStore(url).open(), StoreUnavailableError, "missing/store.db", "folder")
    assert not (tmp_path / "missing").exists()
    await threads_ended(threads)


async def test_a_folder_in_place_of_a_file_is_unavailable(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    await fails(SqlWorkflowStore(f"sqlite:///{tmp_path}").open(), StoreUnavailableError)
    await threads_ended(threads)


def test_a_program_that_cannot_open_its_file_ends_without_noise(tmp_path: Path) -> None:
    """No thread of a failed connection speaks to the loop that has ended."""
    store = SqlWorkflowStore(f"sqlite:///{tmp_path}/missing/store.db")
    for _ in range(30):
        with pytest.raises(StoreUnavailableError):
            asyncio.run(store.open())


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(sqlite_url: str) -> None:
    content = b"This is a letter, not a database. " * 100
    path_of(sqlite_url).write_bytes(content)
    await fails(SqlWorkflowStore(sqlite_url).open(), WorkflowStoreError, "not a SQLite database")
    assert path_of(sqlite_url).read_bytes() == content


async def test_a_corrupt_file_is_an_error_that_says_so(sqlite_url: str) -> None:
    """A page of another program's bytes in the middle of the file."""
    async with open_store(sqlite_url) as store:
        for number in range(100):
            await store.create_run(run(f"r{number}", context="c" * 2000))
            await store.upsert_step(f"r{number}", step())
    content = bytearray(path_of(sqlite_url).read_bytes())
    assert len(content) > 40 * 4096
    for page in range(30, len(content) // 4096):
        content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path_of(sqlite_url).write_bytes(content)

    async with open_store(sqlite_url) as store:
        for number in range(100):
            with contextlib.suppress(WorkflowStoreError):
                await store.get_run(f"r{number}")
        await fails(store.get_run("r99"), WorkflowStoreError, "damaged")
        await fails(store.upsert_step("r99", step("t")), WorkflowStoreError, "damaged")


async def test_a_read_only_file_refuses_writes_and_says_so(sqlite_url: str) -> None:
    """Opened read-only by its URL, which holds for a superuser too."""
    async with open_store(sqlite_url) as writable:
        await writable.create_run(run())
        await writable.upsert_step("r", step())
        read_only = f"sqlite:///file:{path_of(sqlite_url)}?mode=ro&uri=true"
        async with open_store(read_only) as store:
            for name, call in calls(store).items():
                if name in READS:
                    assert await call()
                else:
                    await fails(call(), WorkflowStoreError, "may not write")


async def test_a_full_disk_is_an_error_that_says_so_and_nothing_is_written(
    sqlite_url: str,
) -> None:
    """A file that may not grow; once it may, the store works."""
    engine = create_async_engine(
        make_url(sqlite_url).set(drivername="sqlite+aiosqlite"), pool_size=1, max_overflow=0
    )
    async with SqlWorkflowStore(engine) as store:
        await store.create_run(run())
        async with engine.connect() as connection:
            pages = await connection.scalar(text("PRAGMA page_count"))
            await connection.execute(text(f"PRAGMA max_page_count={pages}"))
        large = step("large", result=PAYLOAD * 10_000)
        await fails(store.upsert_step("r", large), WorkflowStoreError, "disk is full")
        assert await store.list_steps("r") == []
        async with engine.connect() as connection:
            await connection.execute(text("PRAGMA max_page_count=1000000"))
        await store.upsert_step("r", large)
        assert await store.get_step("r", "large") == large
    await engine.dispose()


async def test_a_locked_file_is_unavailable_for_writes_until_the_lock_is_gone(
    sqlite_url: str,
) -> None:
    """Readers do not wait for the writer, nor does an opening."""
    async with open_store(sqlite_url, busy_timeout_s=0.3) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        async with locked(sqlite_url):
            for name, call in calls(store).items():
                if name in READS:
                    assert await call()
                else:
                    await fails(call(), StoreUnavailableError, "busy_timeout_s")
            async with open_store(sqlite_url, busy_timeout_s=0.3) as second:
                assert await second.get_run("r") == await store.get_run("r")
        for call in calls(store).values():
            await call()
        assert checked_out(store) == 0


async def test_a_file_that_is_locked_while_it_is_opened_first_is_waited_for(
    sqlite_url: str,
) -> None:
    """The switch to the write-ahead log does not wait by itself."""
    path_of(sqlite_url).touch()
    store = SqlWorkflowStore(sqlite_url)
    async with locked(sqlite_url):
        opening = asyncio.create_task(store.open())
        done, _ = await asyncio.wait([opening], timeout=0.2)
        assert not done
    await opening
    await store.create_run(run())
    await store.close()


async def test_a_file_that_stays_locked_while_it_is_opened_first_is_unavailable(
    sqlite_url: str,
) -> None:
    """The switch to the write-ahead log waits for the lock no longer than it may."""
    path_of(sqlite_url).touch()
    store = SqlWorkflowStore(sqlite_url, busy_timeout_s=0.3)
    async with locked(sqlite_url):
        await fails(store.open(), StoreUnavailableError)
    async with store:
        await store.create_run(run())


# -- servers that fail -----------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
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
    """Percent-encoded in a string, or as part of SQLAlchemy's URL; a refusal tells nothing."""
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
    """A user of the server with some rights; gives the URL under that name."""
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
                await fails(call(), WorkflowStoreError, "42501", "right")


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


async def test_a_statement_that_runs_out_of_time_is_unavailable_until_the_lock_is_gone(
    postgres_url: str,
) -> None:
    async with open_store(postgres_url, statement_timeout_s=0.5) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        async with locked(postgres_url, "steps"):
            await asyncio.gather(
                *(
                    fails(calls(store)[name](), StoreUnavailableError)
                    for name in ("upsert_step", "get_step", "list_steps")
                )
            )
            assert await store.get_run("r") is not None
        for call in calls(store).values():
            await call()
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
    assert await orphans(database_url) == 0


# -- tables and rows that are not as they were written -----------------------------------


async def test_tables_that_are_downgraded_while_the_store_is_open_are_a_schema_mismatch(
    empty_url: str,
) -> None:
    """The error says the command; the store works again after it was given."""
    await migrate.upgrade(empty_url)
    async with open_store(empty_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        await migrate.downgrade(empty_url, "base")
        for call in calls(store).values():
            error = await fails(call(), SchemaMismatchError, "alembic", "upgrade head")
            assert isinstance(error, SchemaMismatchError)
            assert error.found is None
            assert error.expected is not None
        await migrate.upgrade(empty_url)
        await store.create_run(run())
        await store.upsert_step("r", step())
        for call in calls(store).values():
            await call()


@pytest.mark.parametrize(
    "damage",
    [
        ["DROP TABLE claims", "DROP TABLE steps", "DROP TABLE runs"],
        ["ALTER TABLE runs RENAME TO old_runs", "ALTER TABLE steps RENAME TO old_steps"],
        ["ALTER TABLE runs RENAME context TO old", "ALTER TABLE steps RENAME error TO old"],
    ],
    ids=["dropped", "renamed", "column renamed"],
)
async def test_tables_that_are_changed_by_hand_while_the_store_is_open_are_a_schema_mismatch(
    empty_url: str, damage: list[str]
) -> None:
    """The revision still says that they are there."""
    await migrate.upgrade(empty_url)
    async with open_store(empty_url) as store:
        await store.create_run(run())
        await execute(empty_url, *damage)
        for name in ("create_run", "get_run", "upsert_step", "list_steps"):
            error = await fails(calls(store)[name](), SchemaMismatchError)
            assert isinstance(error, SchemaMismatchError)
            assert error.found == error.expected


@pytest.fixture
def named_url(request: pytest.FixtureRequest) -> str:
    """The database of the fixture that the test's parameter names."""
    return str(request.getfixturevalue(request.param))


RUN_DAMAGES = {
    "no identifier": "UPDATE runs SET agent_id = ''",
    "not an object": "UPDATE runs SET definition = '[]'",
    "a number beyond all floats": "UPDATE runs SET context = '1e999'",
}
RUN_DAMAGES_SQLITE = {
    "not JSON": "UPDATE runs SET context = 'not json PAYL0AD-S3CR3T'",
    "not a time": "UPDATE runs SET created_at = 'yesterday'",
    "a number for a time": "UPDATE runs SET created_at = 5",
    "bytes for text": "UPDATE runs SET context = x'ff00'",
    "not UTF-8": "UPDATE runs SET agent_id = CAST(x'ff' AS TEXT)",
}
RUN_DAMAGES_POSTGRESQL = {
    "before Christ": "UPDATE runs SET created_at = '0044-03-15 12:00 BC'",
    "after year 9999": "UPDATE runs SET created_at = '10001-01-01'",
}


@pytest.mark.parametrize(
    ("named_url", "damage"),
    [("sqlite_url", sql) for sql in (RUN_DAMAGES | RUN_DAMAGES_SQLITE).values()]
    + [("postgres_url", sql) for sql in (RUN_DAMAGES | RUN_DAMAGES_POSTGRESQL).values()],
    indirect=["named_url"],
)
async def test_a_damaged_run_is_an_error_that_names_it(named_url: str, damage: str) -> None:
    """It can be replaced, and the other runs can be read."""
    async with open_store(named_url) as store:
        await store.create_run(run("damaged"))
        await execute(named_url, damage)
        await store.create_run(run("sound"))
        await fails(store.get_run("damaged"), WorkflowStoreError, "'damaged'")
        assert (await store.get_run("sound")) is not None
        await store.create_run(run("damaged"))
        assert (await store.get_run("damaged")) is not None


STEP_DAMAGES = [
    "UPDATE steps SET status = 'bogus' WHERE step_id = 'two'",
    "UPDATE steps SET error = '5' WHERE step_id = 'two'",
    "UPDATE steps SET wait_task_id = '' WHERE step_id = 'two'",
    "UPDATE steps SET result = '1e999' WHERE step_id = 'two'",
]
STEP_DAMAGES_SQLITE = [
    "UPDATE steps SET result = '{PAYL0AD-S3CR3T' WHERE step_id = 'two'",
    "UPDATE steps SET started_at = 'soon' WHERE step_id = 'two'",
]


@pytest.mark.parametrize(
    ("named_url", "damage"),
    [("sqlite_url", sql) for sql in STEP_DAMAGES + STEP_DAMAGES_SQLITE]
    + [("postgres_url", sql) for sql in STEP_DAMAGES],
    indirect=["named_url"],
)
async def test_a_damaged_step_is_an_error_that_names_its_run_and_not_left_out(
    named_url: str, damage: str
) -> None:
    """Of three steps the second is damaged: the list fails, the two others can be read."""
    async with open_store(named_url) as store:
        await store.create_run(run())
        for step_id in ("one", "two", "three"):
            await store.upsert_step("r", step(step_id))
        await execute(named_url, damage)
        await fails(store.get_step("r", "two"), WorkflowStoreError, "'two'", "'r'")
        await fails(store.list_steps("r"), WorkflowStoreError, "'r'")
        assert await store.get_step("r", "one") == step("one")
        assert await store.get_step("r", "three") == step("three")


async def test_a_refused_value_is_told_by_its_place_and_not_by_its_content(
    store: WorkflowStore,
) -> None:
    """The message names the field and the path, and nothing that stands beside it."""
    wrong = {"pages": [PAYLOAD, {"score": float("nan"), "text": PAYLOAD}], "other": PAYLOAD}
    await store.create_run(run())
    for call, place in (
        (store.create_run(run(context=wrong)), "context.pages[1].score"),
        (store.create_run(run(input=wrong)), "input.pages[1].score"),
        (store.update_context("r", wrong), "context.pages[1].score"),
        (store.upsert_step("r", step(result=wrong)), "result.pages[1].score"),
    ):
        with pytest.raises(InvalidStateError) as caught:
            await call
        assert place in str(caught.value)
        assert "S3CR3T" not in str(caught.value)


# -- engines of the caller's own -------------------------------------------------------


def plain(url: str, **options: Any) -> AsyncEngine:
    """An engine as a program makes it that knows nothing of this package."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    return create_async_engine(make_url(url).set(drivername=driver), **options)


def recipe(url: str, begin: str) -> AsyncEngine:
    """An engine with SQLAlchemy's documented recipe for transactions on SQLite."""
    engine = plain(url)

    @event.listens_for(engine.sync_engine, "connect")
    def leave_transactions_alone(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def emit_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def lossy_dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True).replace("NaN", "null")


def lossy_loads(value: str | bytes) -> Any:
    return json.loads(value, parse_int=float)


ENGINES: dict[str, tuple[str, Callable[[str], AsyncEngine]]] = {
    "sqlite": ("sqlite_url", plain),
    "sqlite-begin": ("sqlite_url", lambda url: recipe(url, "BEGIN")),
    "sqlite-begin-immediate": ("sqlite_url", lambda url: recipe(url, "BEGIN IMMEDIATE")),
    "sqlite-autocommit": ("sqlite_url", lambda url: plain(url, isolation_level="AUTOCOMMIT")),
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
    """Whatever JSON functions and transactions the engine's owner has chosen."""
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
    """What is set on a connection."""
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


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# -- URLs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{PASSWORD}@host/db",
        f"mysql+aiomysql://me:{PASSWORD}@host/db",
        f"postgresql+psycopg2://me:{PASSWORD}@host/db",
        f"sqlite+pysqlite:///{PASSWORD}.db",
        f"postgresql://me:{PASSWORD}@host:port/db",
        f"postgresql:/me:{PASSWORD}@host/db",
        f"me:{PASSWORD}@host/db",
        f"memory://{PASSWORD}",
        f"host=localhost password={PASSWORD}",
        "oracle://",
        "://",
        "",
    ],
)
async def test_an_unsupported_url_is_refused_with_a_list_of_what_is_supported(url: str) -> None:
    with pytest.raises(ValueError, match="Supported") as caught:
        open_store(url)
    message = str(caught.value)
    assert "S3CR3T" not in message
    for supported in ("memory://", "sqlite:///", "postgresql://", "postgres://"):
        assert supported in message


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite+aiosqlite:///relative.db", "relative.db"),
        ("sqlite:///{folder}/absolute.db", "absolute.db"),
        ("sqlite+aiosqlite:///{folder}/absolute.db", "absolute.db"),
        ("sqlite:///with space & 100%.db", "with space & 100%.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite+aiosqlite://", None),
        ("memory://", None),
    ],
)
async def test_each_spelling_of_a_local_url_opens_its_store(
    url: str, file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the URL says, none for a store in memory."""
    monkeypatch.chdir(tmp_path)
    store = open_store(url.replace("{folder}", str(tmp_path)))
    assert type(store) is (InMemoryWorkflowStore if url == "memory://" else SqlWorkflowStore)
    assert files(tmp_path) == []
    async with store:
        await store.create_run(run())
        assert await store.get_run("r") is not None
    assert files(tmp_path) == ([] if file is None else [file])


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg"]
)
async def test_each_spelling_of_a_postgresql_url_opens_its_store(
    scheme: str, postgres_url: str
) -> None:
    url = scheme + "://" + postgres_url.split("://", 1)[1]
    store = open_store(url)
    assert type(store) is SqlWorkflowStore
    async with store:
        await store.create_run(run())
        assert await store.get_run("r") is not None
    assert await orphans(postgres_url) == 0


async def test_without_a_url_a_file_in_the_current_folder_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store() as store:
        assert type(store) is SqlWorkflowStore
        await store.create_run(run())
    assert files(tmp_path) == ["workflow_store.db"]


async def test_without_a_url_the_environments_is_opened(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WORKFLOW_STORE_URL` comes before the default and after an argument."""
    monkeypatch.setenv("WORKFLOW_STORE_URL", database_url)
    async with open_store() as store, open_store(database_url) as same:
        await store.create_run(run())
        assert await same.get_run("r") is not None
        async with open_store(f"sqlite:///{tmp_path}/other.db") as other:
            assert await other.get_run("r") is None
    monkeypatch.setenv("WORKFLOW_STORE_URL", "memory://")
    assert type(open_store()) is InMemoryWorkflowStore


async def test_the_environments_schema_holds_the_tables_on_postgresql(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WORKFLOW_STORE_SCHEMA` counts for migrations and stores; an argument comes before it."""
    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", 'Of "Flows"')
    await migrate.upgrade(empty_postgres_url)
    await migrate.upgrade(empty_postgres_url, schema="other")
    async with open_store(empty_postgres_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        for call in calls(store).values():
            await call()
        async with open_store(empty_postgres_url, schema="other") as other:
            assert await other.get_run("r") is None
        await store.delete_run("r")
    connection = await asyncpg.connect(empty_postgres_url)
    try:
        rows = await connection.fetch(
            "SELECT table_schema, count(*) FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') GROUP BY 1"
        )
    finally:
        await connection.close()
    assert {tuple(row) for row in rows} == {('Of "Flows"', 4), ("other", 4)}


async def test_the_environments_schema_has_no_effect_on_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", "flows")
    async with open_store(sqlite_url) as store:
        await store.create_run(run())
        assert await store.get_run("r") is not None


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "postgresql://host/db"])
def test_an_unknown_option_is_refused_for_every_url(url: str) -> None:
    """A typo is an error also where no option has an effect."""
    with pytest.raises(ValueError, match="pool_sise"):
        open_store(url, pool_sise=5)  # type: ignore[call-arg] # what the test is about


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
    """The database itself keeps the promise, whoever writes with foreign keys on."""
    async with SqlWorkflowStore(sqlite_url):
        database = sqlite3.connect(path_of(sqlite_url))
        database.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(
                "INSERT INTO steps (run_task_id, step_id, status) VALUES ('x', 's', 'pending')"
            )
        database.close()
