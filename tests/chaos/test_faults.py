"""The faults of the kit do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from support.waiting import PATIENCE_S, until
from workflow_store.testing import faults
from workflow_store.testing.faults import Fate, PostgresqlProxy, PostgresqlServer, Request

pytestmark = [pytest.mark.slow, pytest.mark.measured]


@pytest.fixture(scope="module")
def running() -> Iterator[PostgresqlServer]:
    with tempfile.TemporaryDirectory(prefix="wfs_faults_", ignore_cleanup_errors=True) as folder:
        server = PostgresqlServer(Path(folder))
        asyncio.run(server.create())
        try:
            yield server
        finally:
            asyncio.run(server.stop())


@pytest.fixture
async def server(running: PostgresqlServer) -> PostgresqlServer:
    """A server with an empty table."""
    await execute(running.url(), "DROP TABLE IF EXISTS t", "CREATE TABLE t (n int)")
    return running


@pytest.fixture
async def proxy(server: PostgresqlServer) -> AsyncIterator[PostgresqlProxy]:
    async with PostgresqlProxy(server.url()) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()
        await asyncio.sleep(0)  # until the transport is closed


@pytest.fixture
async def through(proxy: PostgresqlProxy) -> AsyncIterator[asyncpg.Connection]:
    """A connection through the proxy."""
    async with connected(proxy.url) as connection:
        yield connection


async def execute(url: str, *statements: str) -> None:
    async with connected(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def rows(server: PostgresqlServer) -> int:
    async with connected(server.url()) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM t"))


async def fails(call: asyncio.Future[object]) -> None:
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        async with asyncio.timeout(PATIENCE_S):
            await call


# -- the proxy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "done"), [(Fate.ANSWER_LOST, 1), (Fate.NEVER_SENT, 0), (Fate.HALF_SENT, 0)]
)
async def test_a_write_whose_connection_is_cut_was_done_or_not(
    fate: Fate, done: int, server: PostgresqlServer, proxy: PostgresqlProxy,
    through: asyncpg.Connection,
) -> None:  # fmt: skip
    call = asyncio.ensure_future(through.execute("INSERT INTO t VALUES ($1)", 1))
    assert await proxy.next_request(Request.WRITE, fate)
    await fails(call)
    assert await rows(server) == done


async def test_a_commit_whose_answer_is_lost_was_done(
    server: PostgresqlServer, proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    await through.execute("BEGIN")
    await through.execute("INSERT INTO t VALUES (1)")
    call = asyncio.ensure_future(through.execute("COMMIT"))
    assert await proxy.next_request(Request.COMMIT, Fate.ANSWER_LOST)
    await fails(call)
    assert await rows(server) == 1


async def test_a_late_request_arrives_after_the_client_has_left(
    server: PostgresqlServer, proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    call = asyncio.ensure_future(through.execute("INSERT INTO t VALUES ($1)", 1))
    late = asyncio.ensure_future(proxy.next_request(Request.WRITE, Fate.LATE, for_s=0.5))
    await asyncio.sleep(0.1)
    through.terminate()
    await fails(call)
    assert await rows(server) == 0
    assert await late

    async def arrived() -> bool:
        return await rows(server) == 1

    await until(arrived)


async def test_a_withheld_answer_leaves_the_client_waiting(
    server: PostgresqlServer, proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    call = asyncio.ensure_future(through.execute("INSERT INTO t VALUES ($1)", 1))
    fate = asyncio.ensure_future(proxy.next_request(Request.WRITE, Fate.ANSWER_WITHHELD, for_s=0.5))

    async def done() -> bool:
        return await rows(server) == 1

    await until(done)
    assert not call.done()
    assert await fate
    await fails(call)


async def test_a_request_of_another_kind_passes(
    proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    fate = asyncio.ensure_future(proxy.next_request(Request.COMMIT, Fate.ANSWER_LOST, within_s=0.5))
    await through.execute("INSERT INTO t VALUES (1)")
    assert await through.fetchval("SELECT n FROM t") == 1
    assert not await fate


async def test_what_is_delayed_keeps_its_order(
    proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    async with proxy.delayed(0.02):
        for number in range(20):
            assert await through.fetchval("SELECT $1::int", number) == number


async def test_cut_connections_end_and_others_can_be_made(
    proxy: PostgresqlProxy, through: asyncpg.Connection
) -> None:
    assert proxy.cut() == 1
    await fails(asyncio.ensure_future(through.fetchval("SELECT 1")))
    await execute(proxy.url, "SELECT 1")


# -- the server -----------------------------------------------------------------------------


async def test_a_killed_server_keeps_what_was_committed(server: PostgresqlServer) -> None:
    await execute(server.url(), "INSERT INTO t VALUES (1)")
    await server.kill()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(server.url())
    await server.start()
    assert await rows(server) == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_stopped_server_starts_again(mode: str, server: PostgresqlServer) -> None:
    async with connected(server.url()) as connection:
        await server.stop(mode)
        await server.start()
        await fails(asyncio.ensure_future(connection.fetchval("SELECT 1")))
    assert await rows(server) == 0


async def test_a_paused_session_executes_what_it_was_sent_when_it_goes_on(
    server: PostgresqlServer,
) -> None:
    async with connected(server.url()) as connection:
        async with faults.paused(connection.get_server_pid()) as paused:
            assert paused
            call = asyncio.ensure_future(connection.execute("INSERT INTO t VALUES (1)"))
            await asyncio.sleep(0.1)
            assert not call.done()
            assert await rows(server) == 0
        await call
        assert await rows(server) == 1


async def test_a_terminated_session_has_ended(server: PostgresqlServer) -> None:
    async with connected(server.url()) as connection:
        await faults.terminate(connection.get_server_pid())
        assert connection.get_server_pid() not in await faults.sessions(server.url())
        await fails(asyncio.ensure_future(connection.fetchval("SELECT 1")))


async def test_busy_sessions_are_found(server: PostgresqlServer) -> None:
    async with connected(server.url()) as idle, connected(server.url()) as busy:
        await busy.execute("BEGIN")
        assert busy.get_server_pid() in await faults.when_busy(server.url())
        assert idle.get_server_pid() not in await faults.when_busy(server.url())
        await busy.execute("COMMIT")
        both = {idle.get_server_pid(), busy.get_server_pid()}
        assert both <= set(await faults.when_busy(server.url(), within_s=0.1))


async def test_locked_tables_are_locked_while_the_block_runs(server: PostgresqlServer) -> None:
    async with faults.locked_tables(server.url(), "t"):
        with pytest.raises(asyncpg.LockNotAvailableError):
            await execute(server.url(), "SET lock_timeout = '50ms'", "INSERT INTO t VALUES (1)")
    await execute(server.url(), "INSERT INTO t VALUES (1)")


# -- processes and files --------------------------------------------------------------------


async def test_a_process_that_ended_does_not_exist() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=subprocess.PIPE
    )
    assert faults.exists(process.pid)
    async with faults.paused(process.pid) as paused:
        assert paused == [process.pid]
        status = Path(f"/proc/{process.pid}/stat")
        await until(lambda: status.read_text().rpartition(") ")[2].startswith("T"))
    faults.kill(process.pid)
    await until(lambda: not faults.exists(process.pid))
    assert await process.wait() == -signal.SIGKILL
    faults.kill(process.pid)
    async with faults.paused(process.pid) as paused:
        assert paused == []


async def test_a_locked_file_refuses_writers_and_names_their_process(tmp_path: Path) -> None:
    file = tmp_path / "file.db"
    database = sqlite3.connect(file, timeout=0, isolation_level=None)
    assert faults.lock_holders(file) == []
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (n int)")
    assert faults.lock_holders(file) == []
    async with faults.locked_file(file):
        assert faults.lock_holders(file) == [os.getpid()]
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.execute("INSERT INTO t VALUES (1)")
    assert faults.lock_holders(file) == []
    database.execute("INSERT INTO t VALUES (1)")
    database.close()
