"""A failure of the database, said in the words of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL

from ..errors import StoreUnavailableError, WorkflowStoreError
from .dialects import ErrorKind, StoreDialect
from .urls import masked

__all__ = ["to_store_error", "translate_errors"]


@contextmanager
def translate_errors(dialect: StoreDialect, url: URL) -> Iterator[None]:
    """Raise what fails inside as an error of this package; one that is such already stays.

    Args:
        dialect: the database's dialect.
        url: the database, masked in the message.
    """
    try:
        yield
    except WorkflowStoreError:
        raise
    except Exception as error:
        raise to_store_error(error, dialect, masked(url)) from error


def to_store_error(error: Exception, dialect: StoreDialect, where: str) -> WorkflowStoreError:
    """Give the error to raise for a failure of the database; the caller chains it.

    The failure's own text is left out, since a driver may quote a value or a statement. Its
    code is named, and the failure itself stays at hand as `__cause__`.

    Args:
        error: what the database, its driver or SQLAlchemy raised.
        dialect: the database's dialect.
        where: the database, as a masked URL.
    """
    fault, name, advice = dialect.classify_error(error)
    if fault in {ErrorKind.TRANSIENT, ErrorKind.UNAVAILABLE}:
        return StoreUnavailableError(f"{where} is not available ({name}). {advice}".rstrip())
    return WorkflowStoreError(f"{where} did not do what was asked ({name}). {advice}".rstrip())
