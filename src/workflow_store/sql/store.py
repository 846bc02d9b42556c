"""The store on SQLAlchemy: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import SchemaMismatchError, StoreClosedError
from ..store import ResumableWorkflowStore, RunClaim, StoreView, WorkflowStore
from ..validation import validated_claim
from . import migrate as migrations
from .database import Database, Executor, shielded
from .dialects import EngineOptions, validated_options
from .errors import translate_errors
from .fleet import ResumableMethods
from .methods import StoreMethods
from .retry import Retries
from .telemetry import start_telemetry
from .urls import default_schema, dialect_of, masked, parse_url
from .views import BoundDatabase, FencedDatabase

if TYPE_CHECKING:
    from .telemetry.spans import Telemetry

__all__ = ["SqlWorkflowStore"]

_LOG = logging.getLogger(__name__)


class SqlWorkflowStore(ResumableMethods):
    """Keeps runs in SQLite or PostgreSQL.

    Args:
        url_or_engine: the database, as for `open_store`; or an `AsyncEngine` of the
            caller's, which is used as it is and neither configured nor disposed.
        schema: the PostgreSQL schema of the tables; by default the environment's
            `WORKFLOW_STORE_SCHEMA`, else the one that the connection finds first. SQLite
            has no schemas.
        migrate: whether opening brings the database to the newest revision; by default it
            does on SQLite and only checks on PostgreSQL.
        options: see `EngineOptions`; with an engine of the caller's, only those that are
            about statements: `statement_timeout_s` and `transaction_pooler`.

    Raises:
        ValueError: the database is not supported, or an option is unknown, out of range,
            or given with an engine.

    What a cancelled call had begun goes on to its end in the background, so that no
    connection is left inside a transaction; `close` waits for it.
    """

    def __init__(
        self,
        url_or_engine: str | URL | AsyncEngine,
        *,
        schema: str | None = None,
        migrate: bool | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        if isinstance(url_or_engine, AsyncEngine):
            unused = set(options) - {"statement_timeout_s", "transaction_pooler"}
            if unused:
                raise ValueError(
                    f"A caller's engine is not configured: leave out {', '.join(sorted(unused))}."
                )
            self._callers_engine: AsyncEngine | None = url_or_engine
            self._dialect = dialect_of(url_or_engine)
            self._url = url_or_engine.url
        else:
            self._callers_engine = None
            self._dialect, self._url = parse_url(url_or_engine)
        self._options = validated_options(options)
        self._schema = (schema or default_schema()) if self._dialect.supports_schema else None
        self._migrate = self._dialect.migrates_at_opening if migrate is None else migrate
        self._database: Database | None = None
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Future[Any]] = set()

    # -- life ---------------------------------------------------------------------------

    @property
    def engine(self) -> AsyncEngine:
        """The engine in use: the store's own, to be looked at only, or the caller's.

        Raises:
            StoreClosedError: the store is not open.
        """
        return self._opened_database().engine

    async def open(self) -> None:
        cancelled = False

        async def opened() -> bool:
            return await self._open(unless=lambda: cancelled)

        opening = asyncio.ensure_future(opened())
        try:
            await shielded(opening, self._changes)
        except asyncio.CancelledError:
            # A cancelled `async with` never closes what it opened.
            cancelled = True
            failed = not opening.done() or opening.cancelled() or opening.exception() is not None
            if not failed and opening.result():
                await self.close()
            raise

    async def close(self) -> None:
        await shielded(self._close(), self._changes)

    async def _open(self, *, unless: Callable[[], bool]) -> bool:
        """Open a store that is closed, but if nobody waits for it any more."""
        async with self._changing:
            if self._database is not None or unless():
                return False
            engine = self._callers_engine or self._dialect.create_engine(self._url, self._options)
            try:
                retries = Retries(self._dialect, self._url)
                await retries.run(lambda: self._make_ready(engine))
                telemetry = start_telemetry(engine, self._schema, own=self._callers_engine is None)
            except BaseException:
                await self._let_go(engine)
                raise
            if unless():
                await self._let_go(engine)
                return False
            self._database = Database(engine, self._dialect, self._options, self._schema, telemetry)
            if telemetry is not None:
                telemetry.begin()
                telemetry.observe(self)
            _LOG.info("%s: opened", masked(self._url))
            return True

    async def _close(self) -> None:
        async with self._changing:
            database, self._database = self._database, None
            if database is not None:
                await database.drain()
                if database.telemetry is not None:
                    database.telemetry.end()
                    database.telemetry.leave(self)
                await self._let_go(database.engine)
                _LOG.info("%s: closed", masked(self._url))

    async def _make_ready(self, engine: AsyncEngine) -> None:
        if not self._migrate:  # then nothing is made, nor another program's database changed
            if self._callers_engine is None:
                migrations.require_existing(self._dialect, self._url)
            await migrations.check_with(self._options, engine, schema=self._schema)
        if self._callers_engine is None:
            with translate_errors(self._dialect, self._url):
                await self._dialect.prepare(engine, self._options)
        if self._migrate:
            try:
                await migrations.check_with(self._options, engine, schema=self._schema)
            except SchemaMismatchError:
                await migrations.upgrade(engine, schema=self._schema)

    async def _let_go(self, engine: AsyncEngine) -> None:
        if self._callers_engine is None:
            await engine.dispose()

    def _opened(self) -> Executor:
        return self._opened_database()

    def _opened_database(self) -> Database:
        if self._database is None:
            raise StoreClosedError
        return self._database

    # -- views --------------------------------------------------------------------------

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedStore(self._opened_database, validated_claim(claim), self._telemetry)

    def bind(self, connection: AsyncConnection) -> WorkflowStore:
        """Give the seven methods inside a transaction of the caller's own.

        A step commits or rolls back with the caller's other rows. Nothing is retried,
        committed or batched here, and a write that fails leaves the transaction usable where
        the database is still there. Calls must not be made at once, as with any connection.
        While the transaction is open, writes of the store itself may have to wait for it: do not
        await one inside of it.
        The view is open as long as the store is; opening or closing it does nothing.

        Args:
            connection: a connection to the database of this store, with its tables.

        Raises:
            ValueError: the connection is to another kind of database.
            StoreClosedError: by a call, where the store is not open.
        """
        if dialect_of(connection.engine) is not self._dialect:
            raise ValueError(f"connection: is not to {self._dialect.name}, as this store is")
        return _BoundStore(self._opened_database, connection, self._telemetry)

    @property
    def _telemetry(self) -> Telemetry | None:
        return self._database.telemetry if self._database is not None else None


class _BoundStore(StoreView, StoreMethods):
    def __init__(
        self,
        opened: Callable[[], Database],
        connection: AsyncConnection,
        telemetry: Telemetry | None,
    ) -> None:
        self._opened_database = opened
        self._connection = connection
        if telemetry is not None:
            telemetry.observe(self)

    def _opened(self) -> Executor:
        return BoundDatabase(self._opened_database(), self._connection)


class _FencedStore(StoreView, ResumableMethods):
    def __init__(
        self, opened: Callable[[], Database], claim: RunClaim, telemetry: Telemetry | None
    ) -> None:
        self._opened_outside = opened
        self._claim = claim
        self._telemetry = telemetry
        if telemetry is not None:
            telemetry.observe(self)

    def _opened_database(self) -> Database:
        return self._opened_outside()

    def _opened(self) -> Executor:
        return FencedDatabase(self._opened_database(), self._claim)

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedStore(self._opened_outside, validated_claim(claim), self._telemetry)
