"""Checks of a SQLite file."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ...formatting import size
from ..dialects import SQLITE
from .findings import Check, Examination, Finding, bad, good, warning

__all__ = ["bloat", "file_permissions", "file_system", "foreign_keys", "integrity",
           "journal_mode", "read_only", "sizes", "synchronous", "version", "wal_size",
           "writable"]  # fmt: skip

OLDEST_VERSION = (3, 35)  # RETURNING: https://www.sqlite.org/lang_returning.html

READ_WHOLE_AT_MOST = 512 * 2**20
"""The largest file of which every page is read, which cannot be interrupted."""

ROWS_READ_AT_MOST = 64 * 2**20
"""The largest file of which each row is looked up in the indexes, which takes ten times as long."""

FREE_BYTES_THAT_MATTER = 64 * 2**20

WAL_BYTES_THAT_MATTER = 64 * 2**20
"""SQLite starts a checkpoint at 1,000 pages, or 4 MiB: https://www.sqlite.org/wal.html#ckpt"""

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "lustre", "ncpfs",
     "nfs", "nfs4", "smb3", "smbfs"}
)  # fmt: skip
"""File systems whose locks do not keep SQLite safe: https://www.sqlite.org/useovernet.html"""

_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@asynccontextmanager
async def read_only(connection: AsyncConnection, timeout_s: float) -> AsyncIterator[None]:
    """Run a block in which nothing is written.

    Raises:
        TimeoutError: the statements of the block took longer than the timeout.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    deadline = time.monotonic() + timeout_s
    # SQLite has no statement timeout: https://www.sqlite.org/c3ref/progress_handler.html
    await driver.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        await connection.exec_driver_sql("PRAGMA query_only=ON")
        yield
    except exc.DBAPIError as error:
        if SQLITE.classify_error(error).name == "SQLITE_INTERRUPT":
            raise TimeoutError from error
        raise
    finally:
        await driver.set_progress_handler(None, 0)
        await connection.exec_driver_sql("PRAGMA query_only=OFF")
        await connection.rollback()


def _of_file(check: Callable[[Examination, Path], Awaitable[Finding | None]]) -> Check:
    """Return a check that is skipped if the database is in memory."""

    @functools.wraps(check)
    async def run(examination: Examination) -> Finding | None:
        databases = await examination.connection.exec_driver_sql("PRAGMA database_list")
        (file,) = [row.file for row in databases if row.name == "main"]
        return await check(examination, Path(file)) if file else None

    return run


async def version(examination: Examination) -> Finding:
    current = examination.connection.dialect.server_version_info or ()
    if current < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        advice = f"Use a Python build with SQLite {oldest} or newer."
        return bad(".".join(map(str, current)), advice)
    return good(".".join(map(str, current)))


@_of_file
async def writable(examination: Examination, file: Path) -> Finding:
    query = examination.connection.engine.url.query
    if query.get("mode") == "ro" or query.get("immutable", "0") not in ("", "0"):
        return bad(
            "the URL opens the file read-only",
            "Remove the parameters `mode` and `immutable` from the URL.",
        )
    for path in (file, file.parent):  # the folder holds the write-ahead log
        if not await asyncio.to_thread(os.access, path, os.W_OK, effective_ids=_EFFECTIVE_IDS):
            return bad(
                f"this user does not have permission to write to {str(path)!r}",
                "Grant this user write access to the file and its folder, or run as its owner.",
            )
    return good("this user can write to the file and its folder")


@_of_file
async def file_permissions(examination: Examination, file: Path) -> Finding | None:
    if os.name != "posix":
        return None
    exposed = await asyncio.to_thread(_exposed, file)
    if not exposed:
        return good("only the owner can read the file")
    return warning(
        f"other users can read {', '.join(repr(path.name) for path in exposed)}",
        "Take away their access, and let the programs run with umask 077: "
        f"chmod go= {' '.join(repr(str(path)) for path in exposed)}",
    )


@_of_file
async def file_system(examination: Examination, file: Path) -> Finding | None:
    kind = await asyncio.to_thread(_file_system_type, file)
    if kind in NETWORK_FILE_SYSTEMS:
        return bad(
            f"{kind}, a network file system: access from more than one machine may corrupt the "
            "file",
            "Move the file to a local disk, or use PostgreSQL (workflow-store copy).",
        )
    return good(f"{kind}, local") if kind else None


@_of_file
async def journal_mode(examination: Examination, file: Path) -> Finding:
    mode = await _pragma(examination, "journal_mode")
    if mode == "wal":
        return good("wal: readers and the writer do not block each other")
    return warning(
        f"{mode}: readers and the writer block each other",
        "Open a store on the file, which turns on the write-ahead log (PRAGMA journal_mode=WAL).",
    )


async def synchronous(examination: Examination) -> Finding:
    # A setting of the connection, which is configured as a store's own.
    # https://www.sqlite.org/pragma.html#pragma_synchronous
    level = int(await _pragma(examination, "synchronous"))
    name = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}.get(level, str(level))
    advice = "Open the store with synchronous='FULL', the default."
    if level == 0:
        return bad(f"{name}: a power loss may corrupt the file", advice)
    if level == 1:
        return warning(f"{name}: the most recent commits may be lost in a power failure", advice)
    return good(f"{name}: commits survive a power loss")


async def foreign_keys(examination: Examination) -> Finding:
    if await _pragma(examination, "foreign_keys"):
        return good("enforced on a store's own connections")
    return bad(
        "not enforced: deleting a run in SQL leaves its steps behind",
        "Enable them on every connection: PRAGMA foreign_keys=ON.",
    )


@_of_file
async def integrity(examination: Examination, file: Path) -> Finding:
    length = await asyncio.to_thread(_length, file)
    if length > READ_WHOLE_AT_MOST:
        return warning(
            f"not checked: the file is {size(length)}, and only files up to "
            f"{size(READ_WHOLE_AT_MOST)} are checked in full",
            f"When the database is less busy, run: sqlite3 {str(file)!r} 'PRAGMA quick_check'",
        )
    with_rows = length <= ROWS_READ_AT_MOST
    damage = await _damage(examination, examination.tables if with_rows else ())
    if damage is not None:
        return bad(
            f"the file is damaged: {damage!r}",
            "Stop all writers, save a copy of the file and its -wal file, and restore the "
            "database from a backup. If there is none, `sqlite3 FILE .recover` recovers the "
            "readable rows.",
        )
    rows = (
        "and the indexes match the rows"
        if with_rows
        else f"but indexes are not checked against the rows in files over {size(ROWS_READ_AT_MOST)}"
    )
    return good(f"every page is sound, {rows}")


async def _damage(examination: Examination, tables: Iterable[str]) -> str | None:
    """Check all pages and the rows of the given tables; return the first damage SQLite reports.

    A host's tables are excluded: their indexes may use functions that are missing here.
    https://www.sqlite.org/pragma.html#pragma_integrity_check
    """
    pragmas = ["quick_check(10)", *(f"integrity_check({name})" for name in tables)]
    try:
        for pragma in pragmas:
            rows = await examination.connection.exec_driver_sql(f"PRAGMA {pragma}")
            report = str(rows.scalars().all()[0])
            if report != "ok":
                return report.strip().splitlines()[-1]
    except exc.DatabaseError as error:
        # A check that cannot continue fails like any query.
        if SQLITE.classify_error(error).name.startswith("SQLITE_CORRUPT"):
            return str(error.orig)
        raise
    return None


@_of_file
async def sizes(examination: Examination, file: Path) -> Finding:
    length = await asyncio.to_thread(_length, file)
    sizes = [f"file {size(length)}"]
    # An optional module: https://www.sqlite.org/dbstat.html
    has_dbstat = await examination.connection.scalar(
        text("SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'")
    )
    if has_dbstat and examination.tables and length <= READ_WHOLE_AT_MOST:
        query = text(
            "SELECT m.tbl_name, sum(d.pgsize), sum(iif(m.type = 'index', d.pgsize, 0)) "
            "FROM dbstat('main', 1) AS d JOIN sqlite_master AS m ON m.name = d.name "
            "WHERE m.tbl_name IN :names GROUP BY 1 ORDER BY 2 DESC"
        ).bindparams(bindparam("names", expanding=True))
        rows = await examination.connection.execute(query, {"names": examination.tables})
        sizes += [f"{name} {size(total)} (indexes {size(part)})" for name, total, part in rows]
    return good(", ".join(sizes))


@_of_file
async def bloat(examination: Examination, file: Path) -> Finding:
    pages = int(await _pragma(examination, "page_count"))
    free = int(await _pragma(examination, "freelist_count"))
    free_bytes = free * int(await _pragma(examination, "page_size"))
    unused = f"{size(free_bytes)} of the file is free space, {free / max(1, pages):.0%}"
    if free_bytes > FREE_BYTES_THAT_MATTER and free > pages / 4:
        return warning(
            f"{unused}; new runs use it first",
            f"To shrink the file, stop all writers and run: sqlite3 {str(file)!r} VACUUM",
        )
    return good(unused)


@_of_file
async def wal_size(examination: Examination, file: Path) -> Finding:
    length = await asyncio.to_thread(_length, Path(f"{file}-wal"))
    if length > WAL_BYTES_THAT_MATTER:
        return warning(
            f"the write-ahead log is {size(length)}, which slows down reads",
            "A long-running reader is preventing the log from being reset: find and stop the "
            "reader, then run: "
            f"sqlite3 {str(file)!r} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )
    return good(f"the write-ahead log is {size(length)}")


def _exposed(file: Path) -> list[Path]:
    """Return the file and its write-ahead log, as far as other users can read them.

    They can if the file, and each folder on the way to it, lets the same class of users in. SQLite
    creates the log with the permissions of the file.
    """
    file = file.resolve()
    exposed = []
    for path in (file, Path(f"{file}-wal")):
        try:
            mode = path.stat().st_mode
            folders = [folder.stat().st_mode for folder in path.parents]
        except OSError:
            continue  # there is no log, or this user may not look
        for read, enter in ((stat.S_IRGRP, stat.S_IXGRP), (stat.S_IROTH, stat.S_IXOTH)):
            # Another folder may belong to another group.
            if mode & read and all(folder & (enter | stat.S_IXOTH) for folder in folders):
                exposed.append(path)
                break
    return exposed


def _file_system_type(file: Path) -> str | None:
    try:
        mounts = os.fsdecode(Path("/proc/self/mounts").read_bytes())
    except OSError:
        return None  # not Linux
    return mounted_as(file.resolve(), mounts)


def mounted_as(file: Path, mounts: str) -> str | None:
    """Return the type of the file system that holds a file, from the text of /proc/self/mounts."""
    types: dict[Path, str] = {}
    for line in filter(None, mounts.split("\n")):  # names may contain other line separators
        _, mount_point, kind, *_ = line.split(" ")
        # Blanks and backslashes are octal escapes: https://man7.org/linux/man-pages/man5/fstab.5.html
        name = re.sub(
            rb"\\([0-3][0-7]{2})", lambda m: bytes([int(m[1], 8)]), os.fsencode(mount_point)
        )
        types[Path(os.fsdecode(name))] = kind  # a later mount hides an earlier one
    return next((types[path] for path in (file, *file.parents) if path in types), None)


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


async def _pragma(examination: Examination, name: str) -> Any:
    return (await examination.connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
