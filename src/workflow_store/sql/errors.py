"""Translation of database errors into errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from ..errors import StoreUnavailableError, WorkflowStoreError
from .dialects import RETRY_LATER, ErrorKind, UnknownOutcomeError
from .urls import DatabaseUrl

__all__ = ["corrupt_row_error", "is_undecodable", "to_store_error", "translate_errors"]


@contextmanager
def translate_errors(database: DatabaseUrl) -> Iterator[None]:
    """Raise errors inside the block as errors of this package."""
    try:
        yield
    except WorkflowStoreError:
        raise
    except Exception as error:
        raise to_store_error(error, database) from error


def to_store_error(
    error: Exception, database: DatabaseUrl, purpose: str = ""
) -> WorkflowStoreError:
    """Return the error to raise for a database error; the caller chains the two.

    The text of the database error is left out, because drivers quote values and statements,
    except that of a missing privilege, which names the object. The message names the code; the
    error itself is the `__cause__`.

    Args:
        error: the error of the database, its driver or SQLAlchemy.
        database: the database.
        purpose: the purpose of the operation, such as " for run 'a'".
    """
    kind, name, advice = database.dialect.classify_error(error)
    subject = database.name + purpose
    if isinstance(error, UnknownOutcomeError):
        advice = "" if advice == RETRY_LATER else advice  # it is not retried
        return StoreUnavailableError(
            f"{subject} failed during a write ({name}), which may or may not have been applied. "
            f"Read the run, then repeat the call if needed. {advice}".rstrip()
        )
    if kind in {ErrorKind.TRANSIENT, ErrorKind.UNAVAILABLE}:
        return StoreUnavailableError(f"{subject} is not available ({name}). {advice}".rstrip())
    return WorkflowStoreError(f"{subject} rejected the operation ({name}). {advice}".rstrip())


def is_undecodable(error: Exception) -> bool:
    """Return whether a driver could not decode a value that the database sent."""
    if isinstance(error, exc.OperationalError):  # text that is not UTF-8, on SQLite
        reported = ("sqlite_errorcode", "sqlstate")  # by the database
        return not any(hasattr(error.orig, name) for name in reported)
    return isinstance(error, TypeError | ValueError | OverflowError)


def corrupt_row_error(subject: str) -> WorkflowStoreError:
    """Return the error for a row that no store wrote."""
    return WorkflowStoreError(
        f"The stored row for {subject} is corrupt or was changed by another program. Fix the "
        "row, restore it from a backup, or delete the run."
    )
