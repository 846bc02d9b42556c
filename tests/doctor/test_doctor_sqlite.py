"""Examining what only SQLite has."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.doctor import BAD, GOOD, WARNING, execute, file_of, found_in, some_runs, the
from support.engines import engine_of_a_host
from workflow_store import open_store
from workflow_store.sql.dialects import Subject, validated_options
from workflow_store.sql.dialects.sqlite import health as sqlite_health
from workflow_store.sql.models import VERSION_TABLE
from workflow_store.testing import a_run


async def test_a_journal_that_is_no_write_ahead_log_is_told(file_url: str) -> None:
    await execute(file_url, "PRAGMA journal_mode=DELETE")
    finding = await the("journal_mode", file_url)
    assert finding.verdict is WARNING
    assert finding.found.startswith("delete: ")
    async with open_store(file_url):
        assert (await the("journal_mode", file_url)).verdict is GOOD


async def test_what_survives_loss_of_power_is_told_as_stores_are_opened(file_url: str) -> None:
    assert (await the("synchronous", file_url)).verdict is GOOD
    finding = await the("synchronous", file_url, synchronous="NORMAL")
    assert finding.verdict is WARNING
    assert finding.found.startswith("NORMAL: ")


async def test_a_connection_that_was_set_up_badly_is_bad(file_url: str) -> None:
    subject = Subject([], VERSION_TABLE, None, validated_options({}))
    async with engine_of_a_host(file_url) as engine, engine.connect() as connection:
        for setting, check in (
            ("foreign_keys", sqlite_health.foreign_keys),
            ("synchronous", sqlite_health.synchronous),
        ):
            await connection.exec_driver_sql(f"PRAGMA {setting}=OFF")
            assert (await check(connection, subject)).verdict is BAD


def spoil(url: str, name: str, page: bytes) -> None:
    """Write another first page over that of a table or an index."""
    file = file_of(url)
    assert file is not None
    with closing(sqlite3.connect(file)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name LIKE ?", [name]
        ).fetchone()
    with file.open("r+b") as opened:
        opened.seek((root - 1) * len(page))
        opened.write(page)


async def test_a_damaged_page_is_bad(file_url: str) -> None:
    async with open_store(file_url) as store:
        await some_runs(store, 50)
    spoil(file_url, "ix_runs_user_id%", b"\xff" * 4096)
    finding = await the("integrity", file_url)
    assert finding.verdict is BAD
    assert finding.found.startswith("the file is damaged: ")


async def test_a_page_of_zeros_is_bad(file_url: str) -> None:
    """SQLite itself gives up there, and so names no page."""
    async with open_store(file_url) as store:
        await some_runs(store)
    file = file_of(file_url)
    assert file is not None
    with file.open("r+b") as opened:
        opened.seek(3 * 4096)
        opened.write(bytes(4096))
    finding = await the("integrity", file_url)
    assert finding.verdict is BAD
    assert finding.found == "the file is damaged: 'database disk image is malformed'"
    assert "restore it from a backup" in finding.advice


async def test_a_row_that_an_index_lacks_is_bad_where_the_file_is_small(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere no more is said than was looked at."""
    finding = await the("integrity", file_url)
    assert finding.found == "every page is sound, and the indexes agree with the rows"
    await write_past_an_index(file_url, "ix_runs_user_id_created_at_run_task_id")
    finding = await the("integrity", file_url)
    assert finding.verdict is BAD
    assert "missing from index ix_runs_user_id_created_at_run_task_id" in finding.found
    assert "restore it from a backup" in finding.advice
    monkeypatch.setattr(sqlite_health, "ROWS_READ_AT_MOST", 4096)
    finding = await the("integrity", file_url)
    assert finding.verdict is GOOD
    assert finding.found.startswith("every page is sound; ")
    assert "not looked at" in finding.found


async def write_past_an_index(url: str, index: str) -> None:
    """Make runs while SQLite does not know of an index."""
    known = "FROM sqlite_master WHERE name = ?"
    change = "PRAGMA writable_schema=ON"
    file = file_of(url) or ""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
        row = connection.execute(f"SELECT * {known}", [index]).fetchone()
        connection.execute(f"DELETE {known}", [index])
    async with open_store(url) as store:
        await some_runs(store)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)


async def test_a_damaged_table_of_others_is_told_too(file_url: str) -> None:
    """It is the same file."""
    await execute(file_url, "CREATE TABLE theirs AS SELECT 1 AS a")
    spoil(file_url, "theirs", bytes(4096))
    assert (await the("integrity", file_url)).verdict is BAD


async def test_a_large_file_is_not_read_whole(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_health, "READ_WHOLE_AT_MOST", 4096)
    found = await found_in(file_url)
    assert found["integrity"].verdict is WARNING
    assert "not looked at" in found["integrity"].found
    assert f"sqlite3 {str(file_of(file_url))!r} 'PRAGMA quick_check'" in found["integrity"].advice
    assert found["sizes"].found.startswith("the file ")
    assert "steps" not in found["sizes"].found


async def test_free_pages_are_told_where_they_are_many(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_health, "FREE_BYTES_THAT_MATTER", 2**18)
    async with open_store(file_url) as store:
        await store.create_run(a_run(context={"text": "x" * 2**20}))
        assert (await the("bloat", file_url)).verdict is GOOD
        await store.delete_run("run")
    finding = await the("bloat", file_url)
    assert finding.verdict is WARNING
    assert "VACUUM" in finding.advice
    await execute(file_url, "VACUUM")
    assert (await the("bloat", file_url)).verdict is GOOD


async def test_a_log_that_a_reader_keeps_from_being_emptied_is_told(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_health, "WAL_BYTES_THAT_MATTER", 6 * 2**20)
    async with open_store(file_url) as store:
        await store.create_run(a_run())
        assert (await the("wal_size", file_url)).verdict is GOOD
        with closing(sqlite3.connect(file_of(file_url) or "", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM runs").fetchone()
            for number in range(8):
                await store.update_context("run", {"text": str(number) * 2**20})
            finding = await the("wal_size", file_url)
        assert finding.verdict is WARNING
        assert "wal_checkpoint" in finding.advice


async def test_a_file_that_may_only_be_read_is_bad(file_url: str) -> None:
    finding = await the("writable", f"sqlite:///file:{file_of(file_url)}?mode=ro&uri=true")
    assert finding.verdict is BAD
    assert "reading only" in finding.found


async def test_a_right_to_write_that_is_missing_is_bad(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the system, which refuses nothing to the administrator that tests may run as."""
    monkeypatch.setattr(os, "access", lambda place, *_, **__: place.is_file())
    finding = await the("writable", file_url)
    assert finding.verdict is BAD
    assert repr(str((file_of(file_url) or Path()).parent)) in finding.found


def test_where_a_file_is_mounted_is_told_by_the_longest_way_to_it() -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\nserver:/x /mnt nfs4 rw 0 0\ntmpfs /mnt/a\\040b tmpfs rw 0 0\n"
        "server:/y /over ext4 rw 0 0\nserver:/z /over cifs rw 0 0\n"
        "server:/x /mnt/größe nfs4 rw 0 0\nserver:/x /mnt/ß\\040\\134x41 smb3 rw 0 0\n"
        "server:/x /mnt/\u2028 ceph rw 0 0\nserver:/x /mnt/\udcff afs rw 0 0\n"
    )
    for file, kind in (
        ("/home/x.db", "ext4"),
        ("/mnt/x.db", "nfs4"),
        ("/mnt/a b/x.db", "tmpfs"),
        ("/over/x.db", "cifs"),
        ("/mntx/x.db", "ext4"),
        ("/mnt/größe/x.db", "nfs4"),
        ("/mnt/ß \\x41/x.db", "smb3"),
        ("/mnt/\u2028/x.db", "ceph"),
        ("/mnt/\udcff/x.db", "afs"),
    ):
        assert sqlite_health.mounted_as(Path(file), mounts) == kind
    assert sqlite_health.mounted_as(Path("/x.db"), "") is None


async def test_a_file_on_a_network_is_bad(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests run on counts as a network here."""
    local = (await the("file_system", file_url)).found.removesuffix(", local")
    monkeypatch.setattr(sqlite_health, "NETWORK_FILE_SYSTEMS", {local})
    finding = await the("file_system", file_url)
    assert finding.verdict is BAD
    assert "PostgreSQL" in finding.advice


async def test_a_database_in_memory_has_no_file_to_look_at() -> None:
    found = await found_in("sqlite://")
    assert set(found) == {"reachable", "clock", "revision", "tables", "version", "synchronous",
                          "foreign_keys"}  # fmt: skip


async def test_a_time_that_no_store_wrote_is_not_told(file_url: str) -> None:
    """The other checks go on."""
    async with open_store(file_url) as store:
        await some_runs(store)
    await execute(file_url, "UPDATE runs SET created_at = 'yesterday'")
    found = await found_in(file_url)
    assert found["oldest_run"].found.startswith("not told: ")
    assert found["orphans"].verdict is GOOD
