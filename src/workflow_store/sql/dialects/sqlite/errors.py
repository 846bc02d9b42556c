"""The meaning of the errors of SQLite and aiosqlite."""

from __future__ import annotations

from ..errors import (
    NOT_OUR_TABLES,
    RETRY_LATER,
    ErrorInfo,
    ErrorKind,
    cause_chain,
    classify_by_type,
)

__all__ = ["classify_error"]


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
    "SQLITE_BUSY": (
        ErrorKind.UNAVAILABLE,  # after the busy timeout
        "Another process has held the write lock for longer than `busy_timeout_s`: stop it, or "
        "wait.",
    ),
    "SQLITE_BUSY_RECOVERY": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_BUSY_SNAPSHOT": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_CANTOPEN": (
        ErrorKind.UNAVAILABLE,
        "Check that the folder exists, and that this user can write to it and to the file.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (ErrorKind.RUN_MISSING, ""),
    "SQLITE_CORRUPT": (ErrorKind.OTHER, "The file is damaged: restore it from a backup."),
    "SQLITE_ERROR": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # the code for a missing table or column
    "SQLITE_FULL": (ErrorKind.OTHER, "The disk is full: nothing was written; free some space."),
    "SQLITE_IOERR": (ErrorKind.UNAVAILABLE, "A disk I/O error occurred: check the disk."),
    "SQLITE_LOCKED": (ErrorKind.TRANSIENT, RETRY_LATER),
    "SQLITE_NOTADB": (ErrorKind.OTHER, "The file is not a SQLite database: check the URL."),
    "SQLITE_READONLY": (
        ErrorKind.OTHER,
        "This user does not have permission to write to the file or its folder.",
    ),
    "SQLITE_TOOBIG": (ErrorKind.OTHER, "A value exceeds SQLite's size limit (1 GB by default)."),
}
