"""The meaning of a database error, and the errors that carry no code."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import exc

__all__ = [
    "NOT_OUR_TABLES", "RETRY_LATER", "ErrorInfo", "ErrorKind", "UnknownOutcomeError",
    "cause_chain", "classify_by_type",
]  # fmt: skip

RETRY_LATER = "Retries did not help; try again later."
NOT_OUR_TABLES = "The tables are not workflow-store tables."


class ErrorKind(enum.Enum):
    """The meaning of a database error to a store."""

    TRANSIENT = "an immediate retry may succeed"
    UNAVAILABLE = "unreachable, locked or timed out; an immediate retry would not help"
    RUN_MISSING = "a step refers to a run that does not exist"
    SCHEMA = "the tables are not as expected"
    OTHER = "anything else"


class UnknownOutcomeError(Exception):
    """A transaction may have been committed; the cause says what happened.

    Attributes:
        session: the server session that may still commit it; None if it no longer can.
    """

    def __init__(self, session: object | None) -> None:
        super().__init__(session)
        self.session = session


class ErrorInfo(NamedTuple):
    """The kind of a database error, its name, and advice to a person."""

    kind: ErrorKind
    name: str
    advice: str


def classify_by_type(error: BaseException) -> ErrorInfo:
    """Classify an error without a code: of the network, the pool or a lost connection."""
    for cause in cause_chain(error):
        if isinstance(cause, exc.TimeoutError):
            return ErrorInfo(
                ErrorKind.UNAVAILABLE,
                "no connection became available",
                "Raise `pool_size` or `pool_timeout_s`, or make fewer concurrent calls.",
            )
        if isinstance(cause, TimeoutError):
            return ErrorInfo(
                ErrorKind.UNAVAILABLE, "timed out", "Check the server's load and the network."
            )
        if isinstance(cause, OSError):
            return ErrorInfo(
                ErrorKind.TRANSIENT,
                type(cause).__name__,
                "Check that the server is running and that the host and port in the URL are "
                "correct.",
            )
        if isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
            return ErrorInfo(ErrorKind.TRANSIENT, "the connection was lost", RETRY_LATER)
    return ErrorInfo(
        ErrorKind.OTHER, type(error).__name__, "See the exception's __cause__ for details."
    )


def cause_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, including the driver error that SQLAlchemy wrapped."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = getattr(current, "orig", None) or current.__cause__
