"""Connections of aiosqlite, each of which has a thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["FILE", "File", "connector", "moved_error", "switch_to_wal"]

FILE = "_workflow_store_file"
"""The attribute of a connection of a store's own engine with the file that it opened."""


class File(NamedTuple):
    """The file of a connection, and the identity that it had when it was opened."""

    path: str
    device: int
    inode: int


def moved_error() -> sqlite3.OperationalError:
    """Return the error of a path that no longer leads to the file that was opened.

    SQLite would go on with the file that has lost its name, or apply its log to the other one:
    https://sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use. It
    detects this itself only without a write-ahead log.
    """
    error = sqlite3.OperationalError("the file was moved, deleted or replaced")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
    error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
    return error


def connector() -> Callable[..., Coroutine[Any, Any, aiosqlite.Connection]]:
    """Return the function that connects for an engine, always to the same file."""
    first: File | None = None

    async def connect(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
        nonlocal first
        connection = await _connect(*arguments, **keywords)
        try:
            file: File | None = await connection._execute(_file_of, connection._conn)  # type: ignore[no-untyped-call] # noqa: SLF001
        except BaseException:
            await connection.close()
            raise
        first = first or file
        if file != first:
            await connection.close()
            raise moved_error()
        setattr(connection, FILE, file)
        return connection

    return connect


def _file_of(connection: sqlite3.Connection) -> File | None:
    """Return the file of a connection; None for a database in memory."""
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    if not path:
        return None
    found = Path(path).stat()
    return File(path, found.st_dev, found.st_ino)


async def _connect(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
    """Connect; if that fails, wait for the end of the connection's thread.

    The thread would fail with a traceback if the event loop were closed first.
    """
    import aiosqlite

    connection = aiosqlite.connect(*arguments, **keywords)
    thread = connection._thread  # noqa: SLF001 - not public
    thread.daemon = True  # as in SQLAlchemy's dialect
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join)
        raise


def switch_to_wal(arguments: Sequence[Any], keywords: Mapping[str, Any], timeout_s: float) -> str:
    """Switch the file to a write-ahead log, which lets readers run beside a writer.

    The mode is persistent (https://sqlite.org/wal.html). SQLite does not wait for the lock of
    the switch itself, so that processes that open a new file at once must retry.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(
        sqlite3.connect(*arguments, **{**keywords, "timeout": timeout_s})
    ) as connection:
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return str(mode)
