"""The interface between the store and its database."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeAlias

from sqlalchemy import URL, Column, ColumnElement, Connection, FromClause, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from .errors import ErrorInfo
from .options import EngineOptions

__all__ = ["DriverCall", "MigrationRunner", "StoreDialect"]


class DriverCall(NamedTuple):
    """A statement, the parameters of each of its rows, and whether it returns rows."""

    sql: str
    rows: Sequence[Sequence[Any]]
    returns: bool = False


MigrationRunner: TypeAlias = Callable[[Callable[[Connection], Any]], Awaitable[Any]]
"""Runs a migration function, several times if it has to wait for a lock; returns its result."""


class StoreDialect(ABC):
    """The differences of one database."""

    name: ClassVar[str]
    migrates_at_opening: ClassVar[bool]
    supports_schema: ClassVar[bool]
    migrates_in_one_transaction: ClassVar[bool]
    enforces_foreign_keys: ClassVar[bool]
    reads_in_one_statement: ClassVar[bool]

    # -- engine and errors --------------------------------------------------------------

    @abstractmethod
    def check_url(self, url: URL) -> None:
        """Validate a URL.

        Raises:
            ValueError: it cannot name a database.
        """

    @abstractmethod
    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        """Create the store's own engine."""

    @abstractmethod
    def file_is_missing(self, url: URL) -> bool:
        """Return whether the database is a file that connecting would create."""

    @abstractmethod
    def is_in_memory(self, url: URL) -> bool:
        """Return whether the database lives in the memory of this process."""

    @abstractmethod
    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        """Prepare the database of the store's own engine, once, before its first use."""

    @abstractmethod
    async def rejection(self, connection: AsyncConnection) -> str | None:
        """Return why no store can use the database, and what to do; None if one can."""

    @abstractmethod
    def classify_error(self, error: BaseException) -> ErrorInfo:
        """Classify an error by its code or type, never by its text."""

    # -- connections --------------------------------------------------------------------

    def checkout_limit(
        self, engine: AsyncEngine, options: EngineOptions
    ) -> contextlib.AbstractContextManager[None]:
        """Limit how long the block may take to obtain a connection of an engine.

        Raises:
            TimeoutError: no connection was obtained in time.
        """
        return contextlib.nullcontext()

    def checkin_limit(
        self, engine: AsyncEngine, driver: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Terminate a connection if the block, which returns it to its pool, takes too long."""
        return contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def connection(
        self, engine: AsyncEngine, options: EngineOptions
    ) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of an engine, within both limits."""
        connection = engine.connect()
        with self.checkout_limit(engine, options):
            await connection.start()
        driver = (await connection.get_raw_connection()).driver_connection

        async def close() -> None:
            with self.checkin_limit(engine, driver):
                await connection.close()

        try:
            yield connection
        finally:
            await asyncio.shield(close())

    # -- statements ---------------------------------------------------------------------

    @abstractmethod
    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insert that has `on_conflict_do_update`."""

    @abstractmethod
    def unnest_source(self, columns: Sequence[Column[Any]]) -> FromClause | None:
        """Return a source of rows whose parameters are one array per column.

        None if a statement per row, in one transaction, is as fast.
        """

    @abstractmethod
    def now(self, plus_s: ColumnElement[float] | None = None) -> ColumnElement[datetime]:
        """Return the time of the database's clock when the statement runs."""

    # -- the driver ---------------------------------------------------------------------

    @abstractmethod
    def encode_datetime(self, time: datetime) -> Any:
        """Return the driver's parameter for a time in UTC."""

    @abstractmethod
    def decode_datetime(self, value: Any) -> datetime:
        """Return the time of a stored value, in UTC.

        Raises:
            TypeError: no store wrote the value.
            ValueError: no store wrote the value.
        """

    @abstractmethod
    def is_closed(self, driver: Any) -> bool:
        """Return whether the driver's connection is closed, without asking the server."""

    @abstractmethod
    def known_session(self, connection: PoolProxiedConnection) -> Any:
        """Return the session of a pooled connection that is usable as it is, else None.

        A session executes the statements of a connection, and may outlive it.
        """

    @abstractmethod
    async def open_session(self, connection: PoolProxiedConnection, options: EngineOptions) -> Any:
        """Return the session of a pooled connection; None if it was closed while idle.

        Raises:
            ConnectionError: the connection is new, and closed.
        """

    @abstractmethod
    def attempt_limit_s(self, options: EngineOptions) -> float:
        """Return how long a call waits for an earlier attempt on its run."""

    @abstractmethod
    async def end_session(self, driver: Any, session: Any, options: EngineOptions) -> bool:
        """Terminate a session over another connection.

        Args:
            driver: the other connection.
            session: the session; None if it has ended.
            options: the options of the store.

        Returns:
            Whether the session no longer exists, and what it committed is durable.
        """

    @abstractmethod
    async def fetch(
        self,
        driver: Any,
        calls: Sequence[tuple[str, Sequence[Any]]],
        options: EngineOptions,
        session: Any,
        *,
        writes: bool = False,
    ) -> list[Any]:
        """Run statements, each with its parameters, and return the rows of all.

        All statements see one snapshot. One statement takes one round trip; any number of
        statements take one thread hop.

        Raises:
            UnknownOutcomeError: what they write may have been committed.
        """

    @abstractmethod
    async def execute(
        self, driver: Any, calls: Sequence[DriverCall], options: EngineOptions, session: Any
    ) -> list[Any]:
        """Run writing statements in one transaction, each for all its rows, and commit.

        One statement for one row takes one round trip; any number of statements take one
        thread hop.

        Returns:
            For each row of the first statement, whether it changed something; if the
            statement returns rows, the returned row or None.

        Raises:
            UnknownOutcomeError: the transaction may have been committed. Any other error means
                that it was not.
        """

    # -- transactions of several statements -----------------------------------------------

    @abstractmethod
    def transaction(
        self, connection: AsyncConnection, options: EngineOptions, session: Any = None
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Begin a transaction, whatever the engine's settings, and commit it after the block.

        Rolled back on error. Each statement, and the commit, may take `statement_timeout_s`.

        Args:
            connection: the connection.
            options: the options of the store.
            session: the session of the connection. None for a transaction that only reads,
                which sees one snapshot.

        Raises:
            TimeoutError: the database does not answer; the connection was terminated.
            UnknownOutcomeError: the transaction may have been committed. Any other error means
                that it was not.
        """

    @abstractmethod
    def savepoint(self, connection: AsyncConnection) -> contextlib.AbstractAsyncContextManager[Any]:
        """Run a write inside a caller's transaction, which begins if it has not.

        A write that fails does not end the transaction.
        """

    # -- migrations ---------------------------------------------------------------------

    @abstractmethod
    def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[MigrationRunner]:
        """Exclude every other migration of these tables while the block runs.

        Yields:
            A function that runs a migration. If a table stays locked, it lets other sessions
            pass and runs the migration again, until the timeout.

        Raises:
            StoreUnavailableError: another migration held the lock longer than the timeout.
        """
