"""What can be well or not with a SQLite file."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import cause_chain
from ..health import Check, Subject, Told, bad, good, size, warning

__all__ = ["CHECKS", "read_only"]

OLDEST_VERSION = (3, 35)  # RETURNING

READ_WHOLE_AT_MOST = 512 * 2**20
"""Size of a file of which every page is read. Nothing can stop that on its way."""

ROWS_READ_AT_MOST = 64 * 2**20
"""Size of a file of which each row is looked up in the indexes. It takes ten times as long."""

FREE_BYTES_THAT_MATTER = 64 * 2**20
WAL_BYTES_THAT_MATTER = 64 * 2**20  # SQLite itself moves it to the file from 4 MiB on

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "lustre", "ncpfs",
     "nfs", "nfs4", "smb3", "smbfs"}
)  # fmt: skip


@asynccontextmanager
async def read_only(connection: AsyncConnection, limit_s: float) -> AsyncIterator[None]:
    """Do what `StoreDialect.read_only` says."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    deadline = time.monotonic() + limit_s
    # There is no timeout of statements; this is asked every so many of SQLite's own steps.
    await driver.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        await connection.exec_driver_sql("PRAGMA query_only=ON")
        yield
    except exc.DBAPIError as error:
        names = {getattr(cause, "sqlite_errorname", None) for cause in cause_chain(error)}
        if "SQLITE_INTERRUPT" in names:
            raise TimeoutError from error
        raise
    finally:
        await driver.set_progress_handler(None, 0)
        await connection.exec_driver_sql("PRAGMA query_only=OFF")
        await connection.rollback()


async def version(connection: AsyncConnection, subject: Subject) -> Told:
    found = connection.dialect.server_version_info or ()
    if found < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        return bad(_dotted(found), f"Run on a Python whose SQLite is {oldest} or newer.")
    return good(_dotted(found))


async def journal_mode(connection: AsyncConnection, subject: Subject) -> Told | None:
    if await _file(connection) is None:
        return None
    found = await _pragma(connection, "journal_mode")
    if found == "wal":
        return good("wal: readers work beside the writer")
    return warning(
        f"{found}: readers and the writer wait for each other",
        "Open a store on the file, which turns on the write-ahead log (PRAGMA journal_mode=WAL).",
    )


async def synchronous(connection: AsyncConnection, subject: Subject) -> Told:
    # Not the file's, but that of a connection, which is made as a store makes its own.
    level = int(await _pragma(connection, "synchronous"))
    name = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}.get(level, str(level))
    advice = "Open the store with synchronous='FULL', the default."
    if level == 0:
        return bad(f"{name}: loss of power may damage the file", advice)
    if level == 1:
        return warning(f"{name}: loss of power may lose the last commits", advice)
    return good(f"{name}: commits survive loss of power")


async def foreign_keys(connection: AsyncConnection, subject: Subject) -> Told:
    if await _pragma(connection, "foreign_keys"):
        return good("enforced by a store's own connections")
    return bad(
        "not enforced: deleting a run elsewhere than by the store leaves its steps behind",
        "Turn them on for every connection: PRAGMA foreign_keys=ON.",
    )


async def integrity(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    length = await asyncio.to_thread(_length, file)
    if length > READ_WHOLE_AT_MOST:
        return warning(
            f"not looked at: the file has {size(length)}, and only up to "
            f"{size(READ_WHOLE_AT_MOST)} are read whole",
            f"When there is little to do, run: sqlite3 {str(file)!r} 'PRAGMA quick_check'",
        )
    rows_too = length <= ROWS_READ_AT_MOST
    damage = await _damage(connection, [table.name for table in subject.tables if rows_too])
    if damage is None:
        return good(
            "every page is sound, and the indexes agree with the rows"
            if rows_too
            else "every page is sound; whether the indexes agree with the rows is not looked at "
            f"over {size(ROWS_READ_AT_MOST)}"
        )
    return bad(
        f"the file is damaged: {damage!r}",
        "Stop all that writes to it, keep a copy of the file and of its -wal beside it, and "
        "restore it from a backup; where there is none, `sqlite3 FILE .recover` saves what is "
        "readable.",
    )


async def _damage(connection: AsyncConnection, names: Iterable[str]) -> str | None:
    """Look at all pages, and at the rows of some tables; give the first damage in SQLite's words.

    The rows of a host's tables stay out: their indexes may need functions that are not here.
    """
    pragmas = ["quick_check(10)", *(f"integrity_check({name})" for name in names)]
    try:
        for pragma in pragmas:
            found = str((await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalars().all()[0])
            if found != "ok":
                return found.strip().splitlines()[-1]
    except exc.DatabaseError as error:
        for cause in cause_chain(error):
            # Where it cannot go on looking, it gives up like a query.
            if getattr(cause, "sqlite_errorname", "").startswith("SQLITE_CORRUPT"):
                return str(cause)
        raise
    return None


async def writable(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    query = connection.engine.url.query
    if query.get("mode") == "ro" or query.get("immutable", "0") not in ("", "0"):
        return bad("the URL opens it for reading only", "Leave mode and immutable out of the URL.")
    for place in (file, file.parent):  # its log is made beside it
        if not await asyncio.to_thread(os.access, place, os.W_OK, effective_ids=_EFFECTIVE):
            return bad(
                f"this user may not write to {str(place)!r}",
                "Give this user the right to write to the file and to its folder, or run as "
                "the file's owner.",
            )
    return good("this user may write to the file and to its folder")


async def file_system(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    found = await asyncio.to_thread(_type_of_file_system, file)
    if found in NETWORK_FILE_SYSTEMS:
        return bad(
            f"{found}, over a network: two machines that open the file may damage it",
            "Move the file to a local disk, or use PostgreSQL (workflow-store copy).",
        )
    return good(f"{found}, local") if found else None


async def sizes(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    length = await asyncio.to_thread(_length, file)
    whole = f"the file {size(length)}"
    known = await connection.scalar(text("SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'"))
    if not (known and subject.tables and length <= READ_WHOLE_AT_MOST):
        return good(whole)
    query = text(
        "SELECT m.tbl_name, sum(d.pgsize), sum(iif(m.type = 'index', d.pgsize, 0)) "
        "FROM dbstat('main', 1) AS d JOIN sqlite_master AS m ON m.name = d.name "
        "WHERE m.tbl_name IN :names GROUP BY 1 ORDER BY 2 DESC"
    ).bindparams(bindparam("names", expanding=True))
    rows = await connection.execute(query, {"names": [table.name for table in subject.tables]})
    parts = [f"{name} {size(total)} (indexes {size(indexes)})" for name, total, indexes in rows]
    return good(", ".join([whole, *parts]))


async def bloat(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    pages = int(await _pragma(connection, "page_count"))
    free = int(await _pragma(connection, "freelist_count"))
    free_bytes = free * int(await _pragma(connection, "page_size"))
    found = f"{size(free_bytes)} of the file are free, {free / max(1, pages):.0%}"
    if free_bytes > FREE_BYTES_THAT_MATTER and free > pages / 4:
        return warning(
            f"{found}; new runs use them first",
            f"To make the file smaller, stop all that writes to it and run: "
            f"sqlite3 {str(file)!r} VACUUM",
        )
    return good(found)


async def wal_size(connection: AsyncConnection, subject: Subject) -> Told | None:
    file = await _file(connection)
    if file is None:
        return None
    length = await asyncio.to_thread(_length, Path(f"{file}-wal"))
    if length > WAL_BYTES_THAT_MATTER:
        return warning(
            f"the log beside the file has {size(length)}, which slows reads down",
            "A reader that never ends keeps it from being emptied: find and end it, then run: "
            f"sqlite3 {str(file)!r} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )
    return good(f"the log beside the file has {size(length)}")


CHECKS: Mapping[str, Check] = {
    "version": version,
    "writable": writable,
    "file_system": file_system,
    "journal_mode": journal_mode,
    "synchronous": synchronous,
    "foreign_keys": foreign_keys,
    "integrity": integrity,
    "sizes": sizes,
    "bloat": bloat,
    "wal_size": wal_size,
}

_EFFECTIVE = os.access in os.supports_effective_ids


def _type_of_file_system(file: Path) -> str | None:
    try:
        mounts = os.fsdecode(Path("/proc/self/mounts").read_bytes())
    except OSError:
        return None  # not Linux
    return mounted_as(file.resolve(), mounts)


def mounted_as(file: Path, mounts: str) -> str | None:
    """Tell the type of the file system that a file is on, by the text of /proc/self/mounts."""
    found: dict[Path, str] = {}
    for line in filter(None, mounts.split("\n")):  # other ends of lines may be in a name
        _, place, kind, *_ = line.split(" ")
        # Blanks and the like are written as octal numbers of their bytes.
        name = re.sub(rb"\\([0-3][0-7]{2})", lambda m: bytes([int(m[1], 8)]), os.fsencode(place))
        found[Path(os.fsdecode(name))] = kind  # a later one lies on top
    return next((found[each] for each in (file, *file.parents) if each in found), None)


def _dotted(numbers: Iterable[Any]) -> str:
    return ".".join(map(str, numbers))


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


async def _pragma(connection: AsyncConnection, name: str) -> Any:
    return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()


async def _file(connection: AsyncConnection) -> Path | None:
    """Give the file by its absolute path, None for a database in memory."""
    files = {row.name: row.file for row in await connection.exec_driver_sql("PRAGMA database_list")}
    return Path(files["main"]) if files["main"] else None
