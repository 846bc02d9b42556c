"""What the errors of SQLite and of its driver mean."""

from __future__ import annotations

from ..base import AGAIN, NOT_OUR_TABLES, Diagnosis, Fault, causes, diagnose_by_type

__all__ = ["diagnose"]


def diagnose(error: BaseException) -> Diagnosis:
    """Tell what an error means, by its code and never by its text."""
    for cause in causes(error):
        name = getattr(cause, "sqlite_errorname", None)
        if name is not None:
            # An extended code, such as SQLITE_IOERR_WRITE, begins with the primary one.
            primary = "_".join(name.split("_")[:2])
            fault, advice = _CODES.get(name) or _CODES.get(primary) or (Fault.OTHER, "")
            return Diagnosis(fault, name, advice)
    return diagnose_by_type(error)


# https://www.sqlite.org/rescode.html
_CODES = {
    "SQLITE_BUSY": (
        Fault.UNAVAILABLE,  # the busy timeout has passed already
        "Another process has been writing for longer than `busy_timeout_s`: end it, or wait.",
    ),
    "SQLITE_BUSY_RECOVERY": (Fault.TRANSIENT, AGAIN),
    "SQLITE_BUSY_SNAPSHOT": (Fault.TRANSIENT, AGAIN),
    "SQLITE_CANTOPEN": (
        Fault.UNAVAILABLE,
        "Check that the folder exists and that this user may write to it and to the file.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (Fault.RUN_MISSING, ""),
    "SQLITE_CORRUPT": (Fault.OTHER, "The file is damaged: restore it from a backup."),
    "SQLITE_ERROR": (Fault.SCHEMA, NOT_OUR_TABLES),  # the code for a missing table or column
    "SQLITE_FULL": (Fault.OTHER, "The disk is full: nothing was written; free some space."),
    "SQLITE_IOERR": (Fault.UNAVAILABLE, "The disk failed to read or write: check it."),
    "SQLITE_LOCKED": (Fault.TRANSIENT, AGAIN),
    "SQLITE_NOTADB": (Fault.OTHER, "The file is not a SQLite database: check the URL."),
    "SQLITE_READONLY": (Fault.OTHER, "This user may not write to the file or to its folder."),
    "SQLITE_TOOBIG": (Fault.OTHER, "A value is larger than SQLite takes (1 GB by default)."),
}
