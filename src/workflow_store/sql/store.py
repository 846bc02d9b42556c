"""The store on SQLAlchemy: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import SchemaMismatchError, StoreClosedError
from ..store import ResumableWorkflowStore, RunClaim, StoreView
from ..validation import check_event_loop, validated_claim
from . import migrate as migrations
from .database import Database, shielded
from .dialects import EngineOptions, validated_options
from .errors import translate_errors
from .executor import Executor
from .methods import ResumableMethods, StoreMethods
from .retry import RetryPolicy
from .telemetry import start_telemetry
from .unsettled import Doubt
from .urls import DatabaseUrl, default_schema
from .views import BoundDatabase, FencedDatabase

if TYPE_CHECKING:
    from .telemetry.spans import Telemetry

__all__ = ["BoundStore", "SqlWorkflowStore"]

_LOG = logging.getLogger("workflow_store.store")


class SqlWorkflowStore(ResumableMethods):
    """Keeps runs in SQLite or PostgreSQL.

    Args:
        url_or_engine: the database, as for `open_store`; or an `AsyncEngine` of the caller,
            which is neither configured nor disposed.
        schema: the PostgreSQL schema of the tables; by default the environment's
            `WORKFLOW_STORE_SCHEMA`, else the search path of the connection. SQLite has no
            schemas.
        migrate: whether opening brings the database to the newest revision. By default it
            does on SQLite, and only checks the revision on PostgreSQL.
        options: see `EngineOptions`; with an engine of the caller only the options for
            statements, `statement_timeout_s` and `transaction_pooler`.

    Raises:
        ValueError: the database is not supported, or an option is unknown, out of range, or
            not accepted with an engine.

    The database work of a cancelled call completes in the background, so that no connection is
    left inside a transaction; `close` waits for it.
    """

    def __init__(
        self,
        url_or_engine: str | URL | AsyncEngine,
        *,
        schema: str | None = None,
        migrate: bool | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        self._callers_engine: AsyncEngine | None = None
        if isinstance(url_or_engine, AsyncEngine):
            unused = set(options) - {"statement_timeout_s", "transaction_pooler"}
            if unused:
                raise ValueError(
                    "These options cannot be used with an engine that you pass in: "
                    f"{', '.join(sorted(unused))}."
                )
            self._callers_engine = url_or_engine
            self._url = DatabaseUrl.of_engine(url_or_engine)
        else:
            self._url = DatabaseUrl.parse(url_or_engine)
        dialect = self._url.dialect
        self._options = validated_options(options)
        self._schema = (schema or default_schema()) if dialect.supports_schema else None
        self._migrate = dialect.migrates_at_opening if migrate is None else migrate
        self._telemetry: Telemetry | None = None
        self._doubts: list[Doubt] = []
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Future[Any]] = set()

    # -- open and close -------------------------------------------------------------------

    @property
    def engine(self) -> AsyncEngine:
        """The engine in use: the store's own, only to be inspected, or the caller's.

        Raises:
            StoreClosedError: the store is not open.
        """
        if self._open_database is None:
            raise StoreClosedError
        return self._open_database.engine

    async def open(self) -> None:
        cancelled = False

        async def opened() -> bool:
            return await self._open(is_wanted=lambda: not cancelled)

        opening = asyncio.ensure_future(opened())
        try:
            await shielded(opening, self._changes)
        except asyncio.CancelledError:
            # A cancelled `async with` does not close the store.
            cancelled = True
            failed = not opening.done() or opening.cancelled() or opening.exception() is not None
            if not failed and opening.result():
                await self.close()
            raise

    async def close(self) -> None:
        await shielded(self._close(), self._changes)

    async def _open(self, *, is_wanted: Callable[[], bool]) -> bool:
        """Open a closed store unless the caller was cancelled; return whether it was opened."""
        async with self._changing:
            if self._open_database is not None:
                check_event_loop(self._open_database.loop)
                return False
            if not is_wanted():
                return False
            engine = self._callers_engine or self._url.dialect.create_engine(
                self._url.url, self._options
            )
            try:
                retry = RetryPolicy(self._url)
                await retry.run(lambda: self._prepare(engine))
                telemetry = start_telemetry(engine, self._schema, own=self._callers_engine is None)
            except BaseException:
                await self._dispose(engine)
                raise
            if not is_wanted():
                await self._dispose(engine)
                return False
            retry.telemetry = self._telemetry = telemetry
            self._open_database = Database(
                engine,
                self._url,
                self._options,
                schema=self._schema,
                retry=retry,
                telemetry=telemetry,
                owns_engine=self._callers_engine is None,
                doubts=self._doubts,
            )
            self._doubts = []
            if telemetry is not None:
                telemetry.track_pool()
                telemetry.instrument(self)
            _LOG.info("%s: opened", self._url.name)
            return True

    async def _close(self) -> None:
        async with self._changing:
            database = self._open_database
            if database is None:
                return
            check_event_loop(database.loop)
            self._open_database = None
            self._doubts = await database.drain()
            telemetry, self._telemetry = self._telemetry, None
            if telemetry is not None:
                telemetry.untrack_pool()
                telemetry.uninstrument(self)
            await self._dispose(database.engine)
            _LOG.info("%s: closed", self._url.name)

    async def _prepare(self, engine: AsyncEngine) -> None:
        if not self._migrate:  # create no file, and change no other program's database
            if self._callers_engine is None:
                self._url.require_existing()
            await migrations.check(engine, schema=self._schema, options=self._options)
        if self._callers_engine is None:
            with translate_errors(self._url):
                await self._url.dialect.prepare(engine, self._options)
        if self._migrate:
            try:
                await migrations.check(engine, schema=self._schema, options=self._options)
            except SchemaMismatchError:
                await migrations.upgrade(engine, schema=self._schema)

    async def _dispose(self, engine: AsyncEngine) -> None:
        if self._callers_engine is None:
            await engine.dispose()

    # -- views --------------------------------------------------------------------------

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedStore(self, validated_claim(claim), self._telemetry)

    def bind(self, connection: AsyncConnection) -> BoundStore:
        """Return a view of this store inside a transaction of the caller.

        Its writes commit or roll back with the caller's other rows. The view never retries,
        commits or batches, and a write that fails leaves the transaction usable if the
        database is still reachable. Calls must not overlap, as on any connection. While the
        transaction is open, writes of the store itself may wait for it: do not await them
        inside of it. The view is open while the store is; `open` and `close` do nothing.

        Args:
            connection: a connection to the database of this store, with its tables. That of
                an `AsyncSession` is `await session.connection()`.

        Raises:
            ValueError: the connection is to another kind of database.
            StoreClosedError: raised by a call if the store is not open.
        """
        name = self._url.dialect.name
        if DatabaseUrl.of_engine(connection.engine).dialect.name != name:
            raise ValueError(f"connection: must be a {name} connection, as this store uses {name}")
        return BoundStore(self, connection, self._telemetry)


class BoundStore(StoreView, StoreMethods):
    """The seven methods, `load_run` and `commit_step` inside a transaction of the caller."""

    def __init__(
        self, store: SqlWorkflowStore, connection: AsyncConnection, telemetry: Telemetry | None
    ) -> None:
        self._store = store
        self._connection = connection
        if telemetry is not None:
            telemetry.instrument(self)

    @property
    def _executor(self) -> Executor:
        return BoundDatabase(self._store._database, self._connection)  # noqa: SLF001


class _FencedStore(StoreView, ResumableMethods):
    def __init__(
        self, store: SqlWorkflowStore, claim: RunClaim, telemetry: Telemetry | None
    ) -> None:
        self._store = store
        self._claim = claim
        self._telemetry = telemetry
        if telemetry is not None:
            telemetry.instrument(self)

    @property
    def _database(self) -> Database:
        return self._store._database  # noqa: SLF001

    @property
    def _executor(self) -> Executor:
        return FencedDatabase(self._database, self._claim)

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedStore(self._store, validated_claim(claim), self._telemetry)
