"""A failure of the database, said in the words of this package."""

from __future__ import annotations

from ..errors import StoreUnavailableError, WorkflowStoreError
from .dialects import Fault, StoreDialect

__all__ = ["store_error"]


def store_error(error: Exception, dialect: StoreDialect, where: str) -> WorkflowStoreError:
    """Give the error to raise for a failure of the database; the caller chains it.

    The failure's own text is left out, since a driver may quote a value or a statement. Its
    code is named, and the failure itself stays at hand as `__cause__`.

    Args:
        error: what the database, its driver or SQLAlchemy raised.
        dialect: the database's dialect.
        where: the database, as a masked URL.
    """
    if isinstance(error, WorkflowStoreError):
        return error
    fault, name, advice = dialect.diagnose(error)
    if fault in {Fault.TRANSIENT, Fault.UNAVAILABLE}:
        return StoreUnavailableError(f"{where} is not available ({name}). {advice}".rstrip())
    return WorkflowStoreError(f"{where} did not do what was asked ({name}). {advice}".rstrip())
