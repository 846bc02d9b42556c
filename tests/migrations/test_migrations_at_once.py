"""Migrations that run at the same time, and beside readers and writers."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import asyncpg
import pytest
from sqlalchemy import make_url

from support.databases import Target, drop_database, new_database
from support.next_version import FIRST, NEXT, set_revisions
from support.schema import (
    OURS,
    add_rows,
    alembic,
    another_migration,
    contents,
    execute,
    file_of,
    opened_and_migrated,
    tables,
)
from support.waiting import PATIENCE_S, until
from workflow_store import SqlWorkflowStore, StoreUnavailableError
from workflow_store.sql import migrate
from workflow_store.sql.dialects import options
from workflow_store.sql.dialects.postgresql import migration_lock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.measured,
    pytest.mark.usefixtures("next_version"),  # it also builds indexes outside of a transaction
]

# -- one at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
async def test_a_migration_gives_up_if_another_one_does_not_end(
    target: Target, empty_url: str, direction: str
) -> None:
    """After the timeout, nothing continues without the lock."""
    if direction == "downgrade":
        await migrate.upgrade(empty_url)
    revision = {"upgrade": "head", "downgrade": "base"}[direction]
    move = getattr(migrate, direction)
    before = await contents(empty_url)
    async with another_migration(empty_url):
        with pytest.raises(StoreUnavailableError):
            await move(target, revision, lock_timeout_s=0.5)
        assert await contents(empty_url) == before
    await move(target, revision, lock_timeout_s=PATIENCE_S)
    assert await migrate.current(target) == (NEXT if direction == "upgrade" else None)


async def test_a_migration_waits_for_another_one_to_end(target: Target, empty_url: str) -> None:
    """It has changed nothing while it waits, and continues automatically."""
    before = await contents(empty_url)
    async with another_migration(empty_url):
        upgrade = asyncio.create_task(migrate.upgrade(target, lock_timeout_s=PATIENCE_S))
        done, _ = await asyncio.wait({upgrade}, timeout=0.3)
        assert not done
        assert await contents(empty_url) == before
    await upgrade
    await migrate.check(target)


async def test_a_cancelled_migration_ends_at_once_and_releases_the_lock(
    target: Target, empty_url: str
) -> None:
    """The next migration runs, on the same engine too."""
    async with another_migration(empty_url):
        upgrade = asyncio.create_task(migrate.upgrade(target, lock_timeout_s=2 * PATIENCE_S))
        await asyncio.wait({upgrade}, timeout=0.1)
        upgrade.cancel()
        ended_at_once, _ = await asyncio.wait({upgrade}, timeout=PATIENCE_S)
    with pytest.raises(asyncio.CancelledError):
        await upgrade
    await migrate.upgrade(target, lock_timeout_s=PATIENCE_S)
    await migrate.check(target)
    assert ended_at_once


async def test_a_migration_that_waits_keeps_no_other_database_waiting(
    empty_url: str, tmp_path: Path
) -> None:
    """A locked database does not block the migration of another one in the same process."""
    other = f"sqlite:///{tmp_path}/other.db"
    async with another_migration(empty_url):
        waiting = asyncio.create_task(migrate.upgrade(empty_url, lock_timeout_s=PATIENCE_S))
        await asyncio.wait({waiting}, timeout=0.3)
        await migrate.upgrade(other)
        await migrate.offline_sql(other)
    await waiting
    await migrate.check(other)


async def test_a_migration_waits_for_a_reader_of_the_file_to_end(sqlite_url: str) -> None:
    """Without a write-ahead log a commit waits for readers, until the timeout."""
    await execute(sqlite_url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
    with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM accounts").fetchall()
        upgrade = asyncio.create_task(migrate.upgrade(sqlite_url, lock_timeout_s=PATIENCE_S))
        done, _ = await asyncio.wait({upgrade}, timeout=0.5)
        assert not done
        reader.rollback()
    await upgrade
    await migrate.check(sqlite_url)


@pytest.mark.parametrize("lock_timeout_s", [0.2, 0])
async def test_a_migration_gives_up_on_a_table_that_stays_in_use(
    empty_postgres_url: str, lock_timeout_s: float
) -> None:
    """Behind a migration that waits for a table, every later query would wait too."""
    await migrate.upgrade(empty_postgres_url)
    await add_rows(empty_postgres_url)
    await migrate.downgrade(empty_postgres_url, FIRST)
    before = await contents(empty_postgres_url)
    reader = await asyncpg.connect(empty_postgres_url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM runs")
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(StoreUnavailableError):
                    await migrate.downgrade(
                        empty_postgres_url, "base", lock_timeout_s=lock_timeout_s
                    )
    finally:
        await reader.close()
    assert await contents(empty_postgres_url) == before


@pytest.mark.parametrize("by_command", [False, True], ids=["", "by-alembic"])
async def test_a_migration_that_waits_for_a_table_lets_others_pass(
    empty_postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by_command: bool,
) -> None:
    """They wait behind it only for a moment, while it waits much longer."""
    url = empty_postgres_url
    await migrate.upgrade(url, FIRST)
    monkeypatch.setattr(migration_lock, "TABLE_LOCK_S", 0.2)
    monkeypatch.setattr(migration_lock, "PAUSE_S", 0.1)
    writer, other = await asyncpg.connect(url), await asyncpg.connect(url)
    waits = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'runs'::regclass "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    try:
        await other.execute(f"SET lock_timeout = '{PATIENCE_S:.0f}s'")
        async with writer.transaction():
            await writer.execute("DELETE FROM runs")
            upgrade: asyncio.Future[object]
            if by_command:
                command = asyncio.to_thread(alembic, "-x", f"url={url}", "upgrade", "head")
                upgrade = asyncio.ensure_future(command)
            else:
                upgrade = asyncio.ensure_future(migrate.upgrade(url, lock_timeout_s=PATIENCE_S))
            for _ in range(1 if by_command else 3):  # which waits and pauses longer
                # A build would wait for the end of a transaction that has a snapshot just then,
                # so the writer does not ask.
                while not await other.fetchval(waits):
                    assert not upgrade.done()
                    await asyncio.sleep(0.01)
                await other.execute("DELETE FROM runs")
            assert not upgrade.done()
        async with asyncio.timeout(PATIENCE_S):
            await upgrade
    finally:
        await writer.close()
        await other.close()
    await migrate.check(url)


async def test_indexes_are_built_beside_writers_and_an_interrupted_build_is_repeated(
    empty_postgres_url: str,
) -> None:
    """An interrupted build leaves an invalid index, which the next upgrade builds again."""
    url = empty_postgres_url
    await migrate.upgrade(url)
    await add_rows(url)
    await migrate.downgrade(url, FIRST)
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    writer, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with writer.transaction():
            # A build on a table waits for the end of the transactions that wrote to it.
            await writer.execute("UPDATE steps SET status = 'failed' WHERE step_id = 'first'")
            upgrade = asyncio.ensure_future(migrate.upgrade(url, lock_timeout_s=1))

            async def one_is_invalid() -> bool:
                return bool(await other.fetchval(invalid))

            await until(one_is_invalid)
            for update in (
                "UPDATE steps SET status = 'failed' WHERE step_id = 'second'",
                "UPDATE runs SET agent_id = 'b'",
            ):
                await other.execute(update, timeout=PATIENCE_S)
            with pytest.raises(StoreUnavailableError):
                await upgrade
        assert await other.fetchval(invalid) == 1
        assert await migrate.current(url) == FIRST
        await migrate.upgrade(url)
        assert await other.fetchval(invalid) == 0
        await migrate.check(url)
    finally:
        await writer.close()
        await other.close()


async def test_a_migration_may_take_longer_than_a_statement_of_a_store(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement timeout of a store does not limit the build of an index."""
    await migrate.upgrade(empty_postgres_url)
    monkeypatch.setitem(options._DEFAULTS, "statement_timeout_s", 0.2)
    reader = await asyncpg.connect(empty_postgres_url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM runs")
            downgrade = asyncio.create_task(migrate.downgrade(empty_postgres_url, "base"))
            done, _ = await asyncio.wait({downgrade}, timeout=0.6)
            assert not done
    finally:
        await reader.close()
    await downgrade


# -- many at once ----------------------------------------------------------------------

PROCESSES = 5
TOGETHER_S = PROCESSES * PATIENCE_S
_start: dict[str, Barrier] = {}


def _get_ready(start: Barrier, next_checkout: Path) -> None:
    set_revisions(NEXT, next_checkout)
    _start["at once"] = start


def _open_when_all_are_ready(url: str) -> None:
    async def work() -> None:
        async with SqlWorkflowStore(url, migrate=True) as store:
            assert await store.list_steps("r") == []

    _start["at once"].wait(TOGETHER_S)
    asyncio.run(work())


@pytest.fixture
def ten_empty_urls(empty_url: str, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    if file_of(empty_url) is not None:
        yield [f"{empty_url}.{number}" for number in range(10)]
        return
    server = request.getfixturevalue("postgres_server")
    urls = [new_database(server) for _ in range(10)]
    yield urls
    for url in urls:
        drop_database(server, url)


def test_five_processes_that_open_an_empty_database_at_once_all_succeed(
    ten_empty_urls: list[str], next_checkout: Path
) -> None:
    """One migrates and the others wait, ten times in a row."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, spawn, _get_ready, (start, next_checkout)) as processes:
        for url in ten_empty_urls:
            opening = [processes.submit(_open_when_all_are_ready, url) for _ in range(PROCESSES)]
            for opened_one in opening:
                opened_one.result(TOGETHER_S)
            asyncio.run(migrate.check(url))
            assert asyncio.run(tables(url)) == OURS


async def test_five_stores_that_open_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    """Stores in one process wait for each other as those of several processes do."""
    opening = (opened_and_migrated(empty_url) for _ in range(5))
    assert await asyncio.gather(*opening, return_exceptions=True) == [None] * 5
    assert await tables(empty_url) == OURS


@pytest.mark.parametrize("where", ["one loop", "threads"])
async def test_databases_migrated_at_once_in_one_process_each_get_their_own_tables(
    empty_url: str, where: str
) -> None:
    """Two migrations of different databases share nothing, though Alembic keeps globals."""
    file = file_of(empty_url)
    places: list[tuple[str, str | None]] = [
        (empty_url, f"schema_{number}") if file is None else (f"{empty_url}.{number}", None)
        for number in range(4)
    ]
    upgrades = [
        asyncio.wait_for(migrate.upgrade(url, schema=schema), PATIENCE_S) for url, schema in places
    ]
    if where == "threads":
        upgrades = [asyncio.to_thread(asyncio.run, upgrade) for upgrade in upgrades]
    assert await asyncio.gather(*upgrades, return_exceptions=True) == [None] * 4
    for url, schema in places:
        await migrate.check(url, schema=schema)
        prefix = f"{schema}." if schema else ""
        assert {f"{prefix}{name}" for name in OURS} <= await tables(url)


async def test_offline_sql_does_not_disturb_an_upgrade_under_way(empty_url: str) -> None:
    """A program may print the SQL for one database while it migrates another."""
    expected = await migrate.offline_sql("postgresql://")
    upgrade = asyncio.create_task(migrate.upgrade(empty_url))
    while not upgrade.done():
        assert await migrate.offline_sql("postgresql://") == expected
        await asyncio.sleep(0)
    assert upgrade.exception() is None
    await migrate.check(empty_url)
