"""SQLite files that fail."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from support.databases import checked_out
from support.failures import PAYLOAD, READS, calls, fails, locked, path_of, run, step
from support.waiting import PATIENCE_S, threads_ended
from workflow_store import SqlWorkflowStore, StoreUnavailableError, WorkflowStoreError, open_store


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
                    await fails(call(), WorkflowStoreError, "does not have permission to write")


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


async def test_a_file_that_cannot_have_a_write_ahead_log_is_refused(sqlite_url: str) -> None:
    """As on some network file systems; SQLite goes on without one, and would block readers."""
    url = f"sqlite:///file:{path_of(sqlite_url)}?vfs=unix-none&uri=true"
    with pytest.raises(WorkflowStoreError, match="write-ahead log") as caught:
        async with asyncio.timeout(PATIENCE_S):
            await SqlWorkflowStore(url).open()
    assert caught.value.__cause__ is None


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


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
async def test_a_file_that_lost_its_name_takes_no_write(sqlite_url: str, how: str) -> None:
    """SQLite would acknowledge writes that no other process can ever read."""
    path, aside = path_of(sqlite_url), path_of(sqlite_url).with_suffix(".aside")
    async with open_store(sqlite_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        if how == "deleted":
            path.unlink()
        else:
            path.rename(aside)
        if how == "replaced":
            path.write_bytes(aside.read_bytes())
        for call in calls(store).values():
            await fails(call(), StoreUnavailableError, "SQLITE_READONLY_DBMOVED", "put it back")
        await fails(store.claim_run("r", owner="me"), StoreUnavailableError, "DBMOVED")
        await asyncio.gather(*(fails(store.get_run("r"), StoreUnavailableError) for _ in range(20)))
        if how == "deleted":
            return
        aside.replace(path)
        await store.upsert_step("r", step("later"))
        assert await store.list_steps("r") == [step(), step("later")]
