"""Connections of aiosqlite, each of which has a thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import raise_read_errors

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["connector", "in_its_thread"]

_T = TypeVar("_T")

_FILE = "_workflow_store_file"
"""The attribute of a connection of a store's own engine with the file that it opened."""


class _File(NamedTuple):
    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> _File | None:
        """Return the file of a connection; None for a database in memory."""
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            return None
        found = Path(path).stat()
        return cls(Path(path), found.st_dev, found.st_ino)

    def check(self) -> None:
        """Raise SQLITE_READONLY_DBMOVED if the path no longer leads to the file.

        SQLite would go on with the file that has lost its name, or apply its log to the other
        one: https://sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use.
        It detects this itself only without a write-ahead log.
        """
        with contextlib.suppress(FileNotFoundError):
            found = self.path.stat()
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                return
        error = sqlite3.OperationalError("the file was moved, deleted or replaced")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
        error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
        raise error


def connector() -> Callable[..., Coroutine[Any, Any, aiosqlite.Connection]]:
    """Return the function that connects for an engine, always to the same file."""
    first: _File | None = None

    async def connect(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
        nonlocal first
        connection = await _connect(*arguments, **keywords)
        try:
            file: _File | None = await connection._execute(_File.of, connection._conn)  # type: ignore[no-untyped-call] # noqa: SLF001
            first = first or file
            if first is not None:
                first.check()
        except BaseException:
            await connection.close()
            raise
        setattr(connection, _FILE, file)
        return connection

    return connect


async def _connect(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
    """Connect; if that fails, wait for the end of the connection's thread.

    The thread would fail with a traceback if the event loop were closed first.
    """
    import aiosqlite

    connection = aiosqlite.connect(*arguments, **keywords)
    thread = connection._thread  # noqa: SLF001 - not public
    thread.daemon = True  # as in SQLAlchemy's dialect
    execute = connection._execute  # noqa: SLF001

    def execute_and_read(
        function: Callable[..., _T], *args: Any, **options: Any
    ) -> Coroutine[Any, Any, _T]:
        call = partial(function, *args, **options)
        return execute(raise_read_errors, connection._conn, call)  # type: ignore[no-untyped-call] # noqa: SLF001

    connection._execute = execute_and_read  # type: ignore[assignment] # noqa: SLF001
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join)
        raise


async def in_its_thread(
    driver: aiosqlite.Connection, run: Callable[[sqlite3.Connection], _T]
) -> _T:
    """Run a function in the connection's thread: one hop, whatever the function does.

    The public methods of aiosqlite take a hop of some 100 microseconds per statement and leave
    a transaction open in between; all of them are built on `_execute`. A cancelled caller does
    not stop the thread, so that the function's transaction always ends.
    """
    file: _File | None = getattr(driver, _FILE, None)  # not on an engine of a caller

    def checked(connection: sqlite3.Connection) -> _T:
        if file is not None:
            file.check()
        return run(connection)

    result: _T = await driver._execute(checked, driver._conn)  # type: ignore[no-untyped-call] # noqa: SLF001
    return result
