"""The meaning of the errors of SQLite and aiosqlite."""

from __future__ import annotations

import contextlib
import sqlite3

from ..errors import (
    NOT_OUR_TABLES,
    RETRY_LATER,
    ErrorInfo,
    ErrorKind,
    UnknownOutcomeError,
    cause_chain,
    classify_by_type,
)

__all__ = [
    "classify_error", "overwrite_failed_commit", "raise_if_unknown", "raise_read_error",
]  # fmt: skip

_PAGES_READ_AT_ONCE = 256
_PAGES_READ_AT_MOST = 16_384  # 64 MiB of the usual size


def raise_read_error(connection: sqlite3.Connection, error: BaseException) -> None:
    """Raise the error of the disk that SQLite reported as damage, if it was one.

    A statement that meets an unreadable page fails with SQLITE_CORRUPT, as if the page were
    damaged: https://sqlite.org/rescode.html#ioerr_corruptfs. A backup reads pages without looking
    at their contents, and returns the code of the disk. Reading the file without SQLite would
    release its locks: https://sqlite.org/howtocorrupt.html.

    Args:
        connection: the connection, in no transaction. This runs in its thread.
        error: the error of a statement.
    """
    if not any(
        getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_CORRUPT
        for cause in cause_chain(error)
    ):
        return
    try:
        _read_pages(connection)
    except sqlite3.Error as read_error:
        if read_error.sqlite_errorname.startswith("SQLITE_IOERR"):
            raise read_error from error


def raise_if_unknown(error: BaseException) -> None:
    """Raise an error of the disk in a transaction that commits as `UnknownOutcomeError`.

    If the sync of the write-ahead log fails, the commit is in the file. It takes no effect, unless
    the file is opened again before the next commit has overwritten it.
    """
    if classify_error(error).name.startswith("SQLITE_IOERR"):
        raise UnknownOutcomeError(None) from error


def overwrite_failed_commit(connection: sqlite3.Connection) -> None:
    """Commit a change of no effect, in the place of a commit that failed."""
    if connection.in_transaction:
        connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version={int(version)}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


class _EnoughError(Exception):
    pass


def _read_pages(connection: sqlite3.Connection) -> None:
    """Read the pages of a file, with a connection that is not in a transaction."""
    file = connection.execute("PRAGMA database_list").fetchone()[2]

    def stop(status: int, remaining: int, total: int) -> None:
        if status != sqlite3.SQLITE_OK or total - remaining >= _PAGES_READ_AT_MOST:
            raise _EnoughError

    with (
        contextlib.suppress(_EnoughError),
        contextlib.closing(sqlite3.connect(file, timeout=0)) as source,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy, pages=_PAGES_READ_AT_ONCE, progress=stop)


def classify_error(error: BaseException) -> ErrorInfo:
    """Classify an error by its code or type, never by its text."""
    for cause in cause_chain(error):
        name = getattr(cause, "sqlite_errorname", None)
        if name is not None:
            # An extended code, such as SQLITE_IOERR_WRITE, begins with the primary one.
            primary = "_".join(name.split("_")[:2])
            kind, advice = _CODES.get(name) or _CODES.get(primary) or (ErrorKind.OTHER, "")
            return ErrorInfo(kind, name, advice)
    return classify_by_type(error)


# https://www.sqlite.org/rescode.html
_CODES = {
    "SQLITE_AUTH": (
        ErrorKind.OTHER,
        "The program's own authorizer denied the statement: allow it.",
    ),
    "SQLITE_BUSY": (
        ErrorKind.UNAVAILABLE,  # after the busy timeout
        "Another process has held the write lock for longer than `busy_timeout_s`: stop it, or "
        "wait.",
    ),
    "SQLITE_BUSY_RECOVERY": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_BUSY_SNAPSHOT": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_CANTOPEN": (
        ErrorKind.UNAVAILABLE,
        "Check that the folder exists, that this user can write to it and to the file, and that "
        "the process has not reached its limit of open files.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (ErrorKind.RUN_MISSING, ""),
    "SQLITE_CORRUPT": (
        ErrorKind.OTHER,
        "The file is damaged: restore it from a backup. In a large file, the disk may have failed "
        "instead: check the kernel's log.",
    ),
    "SQLITE_ERROR": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # the code for a missing table or column
    "SQLITE_FULL": (ErrorKind.OTHER, "The disk is full: nothing was written; free some space."),
    # A commit that fails at the last sync may be found, or not, when the file is opened again.
    "SQLITE_IOERR": (
        ErrorKind.UNAVAILABLE,
        "The disk or the file system failed: check the disk and the kernel's log.",
    ),
    "SQLITE_LOCKED": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_NOTADB": (
        ErrorKind.OTHER,
        "The file is not a SQLite database, or is encrypted: check the URL.",
    ),
    "SQLITE_PERM": (
        ErrorKind.OTHER,
        "This user does not have permission to access the file as the URL asks.",
    ),
    "SQLITE_PROTOCOL": (
        ErrorKind.UNAVAILABLE,
        "Many processes opened the file at once, or its file system does not support locks: try "
        "again later, or put the file on a local disk.",
    ),
    "SQLITE_READONLY": (
        ErrorKind.OTHER,
        "This user does not have permission to write to the file or its folder, or the URL opens "
        "the file read-only.",
    ),
    "SQLITE_READONLY_DBMOVED": (
        ErrorKind.UNAVAILABLE,
        "The file was moved or deleted while it was open: put it back, and open the store again.",
    ),
    "SQLITE_TOOBIG": (ErrorKind.OTHER, "A value exceeds SQLite's size limit (1 GB by default)."),
}
