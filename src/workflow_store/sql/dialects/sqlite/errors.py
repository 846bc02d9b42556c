"""What the errors of SQLite and of its driver mean."""

from __future__ import annotations

from ..base import AGAIN, NOT_OUR_TABLES, ErrorInfo, ErrorKind, cause_chain, classify_by_type

__all__ = ["classify_error"]


def classify_error(error: BaseException) -> ErrorInfo:
    """Tell what an error means, by its code and never by its text."""
    for cause in cause_chain(error):
        name = getattr(cause, "sqlite_errorname", None)
        if name is not None:
            # An extended code, such as SQLITE_IOERR_WRITE, begins with the primary one.
            primary = "_".join(name.split("_")[:2])
            fault, advice = _CODES.get(name) or _CODES.get(primary) or (ErrorKind.OTHER, "")
            return ErrorInfo(fault, name, advice)
    return classify_by_type(error)


# https://www.sqlite.org/rescode.html
_CODES = {
    "SQLITE_BUSY": (
        ErrorKind.UNAVAILABLE,  # the busy timeout has passed already
        "Another process has been writing for longer than `busy_timeout_s`: end it, or wait.",
    ),
    "SQLITE_BUSY_RECOVERY": (ErrorKind.TRANSIENT, AGAIN),
    "SQLITE_BUSY_SNAPSHOT": (ErrorKind.TRANSIENT, AGAIN),
    "SQLITE_CANTOPEN": (
        ErrorKind.UNAVAILABLE,
        "Check that the folder exists and that this user may write to it and to the file.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (ErrorKind.RUN_MISSING, ""),
    "SQLITE_CORRUPT": (ErrorKind.OTHER, "The file is damaged: restore it from a backup."),
    "SQLITE_ERROR": (ErrorKind.SCHEMA, NOT_OUR_TABLES),  # the code for a missing table or column
    "SQLITE_FULL": (ErrorKind.OTHER, "The disk is full: nothing was written; free some space."),
    "SQLITE_IOERR": (ErrorKind.UNAVAILABLE, "The disk failed to read or write: check it."),
    "SQLITE_LOCKED": (ErrorKind.TRANSIENT, AGAIN),
    "SQLITE_NOTADB": (ErrorKind.OTHER, "The file is not a SQLite database: check the URL."),
    "SQLITE_READONLY": (ErrorKind.OTHER, "This user may not write to the file or to its folder."),
    "SQLITE_TOOBIG": (ErrorKind.OTHER, "A value is larger than SQLite takes (1 GB by default)."),
}
