"""Checks of a SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.doctor import (
    BAD,
    GOOD,
    WARNING,
    create_runs,
    execute,
    file_of,
    finding_of,
    findings_of,
)
from support.engines import engine_of_a_host
from workflow_store import open_store
from workflow_store.sql.dialects import SQLITE, validated_options
from workflow_store.sql.doctor import sqlite
from workflow_store.sql.doctor.findings import Examination
from workflow_store.testing import a_run


async def test_a_journal_mode_without_write_ahead_log_is_a_warning(file_url: str) -> None:
    await execute(file_url, "PRAGMA journal_mode=DELETE")
    finding = await finding_of("journal_mode", file_url)
    assert finding.verdict is WARNING
    assert finding.found.startswith("delete: ")
    async with open_store(file_url):
        assert (await finding_of("journal_mode", file_url)).verdict is GOOD


async def test_what_survives_a_power_loss_depends_on_the_options_of_stores(file_url: str) -> None:
    assert (await finding_of("synchronous", file_url)).verdict is GOOD
    finding = await finding_of("synchronous", file_url, synchronous="NORMAL")
    assert finding.verdict is WARNING
    assert finding.found.startswith("NORMAL: ")


async def test_a_badly_configured_connection_is_bad(file_url: str) -> None:
    options = validated_options({})
    async with engine_of_a_host(file_url) as engine, engine.connect() as connection:
        examination = Examination(connection, SQLITE, None, options, running_for_s=1)
        for setting, check in (
            ("foreign_keys", sqlite.foreign_keys),
            ("synchronous", sqlite.synchronous),
        ):
            await connection.exec_driver_sql(f"PRAGMA {setting}=OFF")
            assert (await check(examination)).verdict is BAD


def corrupt(url: str, name: str, page: bytes) -> None:
    """Overwrite the first page of a table or an index."""
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
        await create_runs(store, 50)
    corrupt(file_url, "ix_runs_user_id%", b"\xff" * 4096)
    finding = await finding_of("integrity", file_url)
    assert finding.verdict is BAD
    assert finding.found.startswith("the file is damaged: ")


async def test_a_page_of_zeros_is_bad(file_url: str) -> None:
    """SQLite cannot continue there, and names no page."""
    async with open_store(file_url) as store:
        await create_runs(store)
    file = file_of(file_url)
    assert file is not None
    with file.open("r+b") as opened:
        opened.seek(3 * 4096)
        opened.write(bytes(4096))
    finding = await finding_of("integrity", file_url)
    assert finding.verdict is BAD
    assert finding.found == "the file is damaged: 'database disk image is malformed'"
    assert "restore the database from a backup" in finding.advice


async def test_a_row_missing_from_an_index_is_bad_if_the_file_is_small(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large file, the finding says that this was not checked."""
    finding = await finding_of("integrity", file_url)
    assert finding.found == "every page is sound, and the indexes match the rows"
    await write_past_an_index(file_url, "ix_runs_user_id_created_at_run_task_id")
    finding = await finding_of("integrity", file_url)
    assert finding.verdict is BAD
    assert "missing from index ix_runs_user_id_created_at_run_task_id" in finding.found
    assert "restore the database from a backup" in finding.advice
    monkeypatch.setattr(sqlite, "ROWS_READ_AT_MOST", 4096)
    finding = await finding_of("integrity", file_url)
    assert finding.verdict is GOOD
    assert finding.found.startswith("every page is sound, but ")
    assert "not checked" in finding.found


@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o600, False), (0o700, False), (0o640, True), (0o604, True)]
)
async def test_a_file_that_other_users_can_read_is_a_warning(mode: int, exposed: bool) -> None:
    """And its log; the advice helps. A folder that they cannot enter is enough."""
    with TemporaryDirectory() as name:  # pytest's own folders are its user's only
        folder, url = Path(name), f"sqlite:///{name}/runs.db"
        async with open_store(url):
            for file in ("runs.db", "runs.db-wal"):
                (folder / file).chmod(mode)
            assert (await finding_of("file_permissions", url)).verdict is GOOD
            folder.chmod(0o755)
            finding = await finding_of("file_permissions", url)
            assert finding.verdict is (WARNING if exposed else GOOD)
            if exposed:
                assert "'runs.db', 'runs.db-wal'" in finding.found
                await asyncio.to_thread(os.system, finding.advice.partition(": ")[2])
                assert (await finding_of("file_permissions", url)).verdict is GOOD


async def write_past_an_index(url: str, index: str) -> None:
    """Create runs while SQLite does not know of an index."""
    entry = "FROM sqlite_master WHERE name = ?"
    change = "PRAGMA writable_schema=ON"
    file = file_of(url) or ""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
        row = connection.execute(f"SELECT * {entry}", [index]).fetchone()
        connection.execute(f"DELETE {entry}", [index])
    async with open_store(url) as store:
        await create_runs(store)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)


async def test_a_damaged_table_of_a_host_is_bad(file_url: str) -> None:
    """It is in the same file."""
    await execute(file_url, "CREATE TABLE theirs AS SELECT 1 AS a")
    corrupt(file_url, "theirs", bytes(4096))
    assert (await finding_of("integrity", file_url)).verdict is BAD


async def test_a_large_file_is_not_read_whole(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "READ_WHOLE_AT_MOST", 4096)
    findings = await findings_of(file_url)
    assert findings["integrity"].verdict is WARNING
    assert "not checked" in findings["integrity"].found
    assert (
        f"sqlite3 {str(file_of(file_url))!r} 'PRAGMA quick_check'" in findings["integrity"].advice
    )
    assert findings["sizes"].found.startswith("file ")
    assert "steps" not in findings["sizes"].found


async def test_many_free_pages_are_a_warning(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FREE_BYTES_THAT_MATTER", 2**18)
    async with open_store(file_url) as store:
        await store.create_run(a_run(context={"text": "x" * 2**20}))
        assert (await finding_of("bloat", file_url)).verdict is GOOD
        await store.delete_run("run")
    finding = await finding_of("bloat", file_url)
    assert finding.verdict is WARNING
    assert "VACUUM" in finding.advice
    await execute(file_url, "VACUUM")
    assert (await finding_of("bloat", file_url)).verdict is GOOD


async def test_a_log_that_a_reader_keeps_from_being_emptied_is_a_warning(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAL_BYTES_THAT_MATTER", 6 * 2**20)
    async with open_store(file_url) as store:
        await store.create_run(a_run())
        assert (await finding_of("wal_size", file_url)).verdict is GOOD
        with closing(sqlite3.connect(file_of(file_url) or "", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM runs").fetchone()
            for number in range(8):
                await store.update_context("run", {"text": str(number) * 2**20})
            finding = await finding_of("wal_size", file_url)
        assert finding.verdict is WARNING
        assert "wal_checkpoint" in finding.advice


async def test_a_url_that_opens_the_file_read_only_is_bad(file_url: str) -> None:
    finding = await finding_of("writable", f"sqlite:///file:{file_of(file_url)}?mode=ro&uri=true")
    assert finding.verdict is BAD
    assert "read-only" in finding.found


async def test_a_missing_right_to_write_is_bad(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, since tests may run as root, who may write everywhere."""
    monkeypatch.setattr(os, "access", lambda place, *_, **__: place.is_file())
    finding = await finding_of("writable", file_url)
    assert finding.verdict is BAD
    assert repr(str((file_of(file_url) or Path()).parent)) in finding.found


def test_the_longest_mount_point_above_a_file_decides_its_file_system() -> None:
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
        assert sqlite.mounted_as(Path(file), mounts) == kind
    assert sqlite.mounted_as(Path("/x.db"), "") is None


async def test_a_file_on_a_network_file_system_is_bad(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system of the tests counts as one here."""
    local = (await finding_of("file_system", file_url)).found.removesuffix(", local")
    monkeypatch.setattr(sqlite, "NETWORK_FILE_SYSTEMS", {local})
    finding = await finding_of("file_system", file_url)
    assert finding.verdict is BAD
    assert "PostgreSQL" in finding.advice


async def test_checks_of_the_file_are_left_out_for_a_database_in_memory() -> None:
    findings = await findings_of("sqlite://")
    assert set(findings) == {"reachable", "clock", "revision", "tables", "version", "synchronous",
                          "foreign_keys"}  # fmt: skip


async def test_a_corrupt_time_is_not_checked_and_other_checks_continue(file_url: str) -> None:
    async with open_store(file_url) as store:
        await create_runs(store)
    await execute(file_url, "UPDATE runs SET created_at = 'yesterday'")
    findings = await findings_of(file_url)
    assert findings["oldest_run"].found.startswith("not checked: ")
    assert findings["orphans"].verdict is GOOD
