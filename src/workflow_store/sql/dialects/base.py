"""What a store needs to know of its database."""

from __future__ import annotations

import contextlib
import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeAlias

from sqlalchemy import URL, Column, ColumnElement, Connection, FromClause, Table, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .options import EngineOptions

__all__ = [
    "AGAIN",
    "NOT_OUR_TABLES",
    "Call",
    "ErrorInfo",
    "ErrorKind",
    "MigrationRunner",
    "StoreDialect",
    "cause_chain",
    "classify_by_type",
]

AGAIN = "It did not pass by itself; call again later."
NOT_OUR_TABLES = "The tables are not those of a workflow store."


class ErrorKind(enum.Enum):
    """What an error of the database means to a store."""

    TRANSIENT = "worth another try at once"
    UNAVAILABLE = "not reached, locked or timed out; another try now would not help"
    RUN_MISSING = "a step refers to a run that is not there"
    SCHEMA = "the tables are not as expected"
    OTHER = "anything else"


class ErrorInfo(NamedTuple):
    """What an error of the database means, its name, and what a person can do about it."""

    kind: ErrorKind
    name: str
    advice: str


class Call(NamedTuple):
    """A statement, the parameters of each row that it is for, and whether it gives rows."""

    sql: str
    rows: Sequence[Sequence[Any]]
    returns: bool = False


MigrationRunner: TypeAlias = Callable[[Callable[[Connection], None]], Awaitable[None]]
"""Runs a migration, which may be called several times."""


class StoreDialect(ABC):
    """What one database does in its own way."""

    name: ClassVar[str]
    migrates_at_opening: ClassVar[bool]
    supports_schema: ClassVar[bool]
    migrates_in_one_transaction: ClassVar[bool]
    enforces_foreign_keys: ClassVar[bool]
    reads_in_one_statement: ClassVar[bool]

    # -- engine and errors --------------------------------------------------------------

    @abstractmethod
    def check_url(self, url: URL) -> None:
        """Refuse a URL that cannot name a database.

        Raises:
            ValueError: it cannot.
        """

    @abstractmethod
    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        """Make the store's own engine."""

    @abstractmethod
    def file_is_missing(self, url: URL) -> bool:
        """Tell whether connecting would make the database, which is not there yet."""

    @abstractmethod
    def is_in_memory(self, url: URL) -> bool:
        """Tell whether the database is in the memory of the process that connects to it."""

    @abstractmethod
    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        """Do what the store's own database needs once, before it is used."""

    @abstractmethod
    def classify_error(self, error: BaseException) -> ErrorInfo:
        """Tell what an error means, by its code and never by its text."""

    # -- statements ---------------------------------------------------------------------

    @abstractmethod
    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Give an insert that knows `on_conflict_do_update`."""

    @abstractmethod
    def unnest_source(self, columns: Sequence[Column[Any]]) -> FromClause | None:
        """Give a source of rows that takes one array per column as its parameters.

        None where one statement after the other, in one transaction, is as fast.
        """

    @abstractmethod
    def now(self, plus_s: ColumnElement[float] | None = None) -> ColumnElement[datetime]:
        """Give the time by the database's own clock, as it is when the statement runs."""

    # -- the driver ---------------------------------------------------------------------

    @abstractmethod
    def encode_datetime(self, time: datetime) -> Any:
        """Give the parameter for a time in UTC."""

    @abstractmethod
    def decode_datetime(self, value: Any) -> datetime:
        """Give the time of a value that was read, in UTC.

        Raises:
            TypeError, ValueError: no store wrote it.
        """

    @abstractmethod
    def is_closed(self, driver: Any) -> bool:
        """Tell, without asking the server, whether a driver's connection has ended."""

    @abstractmethod
    async def fetch(
        self, driver: Any, calls: Sequence[tuple[str, Sequence[Any]]], options: EngineOptions
    ) -> list[Any]:
        """Run reading statements, each with its parameters; give the rows of all of them.

        They see one moment. One takes one round trip, and any number of them one thread hop.
        """

    @abstractmethod
    async def execute(
        self, driver: Any, calls: Sequence[Call], options: EngineOptions
    ) -> list[Any]:
        """Run writing statements in one transaction, each for all its rows.

        When it returns, they are committed. One statement for one row takes one round trip,
        and any number of them one thread hop.

        Returns:
            For each row of the first statement, whether it changed something; of one that
            gives rows, the row or None.
        """

    # -- transactions of several statements -----------------------------------------------

    @abstractmethod
    def transaction(
        self, connection: AsyncConnection, options: EngineOptions, *, writes: bool
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Begin one, whatever the engine's own settings are, and commit it after the block.

        One that fails is rolled back. One that only reads sees one moment. Each statement may
        take `statement_timeout_s`, and so may the commit.

        Raises:
            TimeoutError: the database does not answer; the connection is gone.
        """

    @abstractmethod
    def savepoint(self, connection: AsyncConnection) -> contextlib.AbstractAsyncContextManager[Any]:
        """Make a write part of the transaction of a caller, which begins where it has not.

        A write that fails does not end the transaction.
        """

    # -- migrations ---------------------------------------------------------------------

    @abstractmethod
    def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[MigrationRunner]:
        """Keep every other migration of these tables out for as long as the block runs.

        Yields:
            What runs a migration. Where a table's lock is not had at once, others are let
            pass, and the migration is run again until the timeout.

        Raises:
            StoreUnavailableError: another one holds the lock for longer than the timeout.
        """


def classify_by_type(error: BaseException) -> ErrorInfo:
    """Diagnose what carries no code: the network, the pool, a connection that is gone."""
    for cause in cause_chain(error):
        name = type(cause).__name__
        if isinstance(cause, exc.TimeoutError):
            return ErrorInfo(
                ErrorKind.UNAVAILABLE,
                "no connection became free",
                "Raise `pool_size` or `pool_timeout_s`, or make fewer calls at once.",
            )
        if isinstance(cause, TimeoutError):
            return ErrorInfo(
                ErrorKind.UNAVAILABLE, "timed out", "Check the server's load and the network."
            )
        if isinstance(cause, OSError):
            return ErrorInfo(
                ErrorKind.TRANSIENT,
                name,
                "Check that the server runs and that host and port in the URL are right.",
            )
        if isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
            return ErrorInfo(
                ErrorKind.TRANSIENT,
                "the connection was lost",
                AGAIN,
            )
    return ErrorInfo(ErrorKind.OTHER, type(error).__name__, "The cause says more.")


def cause_chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = getattr(current, "orig", None) or current.__cause__
