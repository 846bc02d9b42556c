"""SQLite through aiosqlite."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Table,
    Text,
    event,
    exc,
    func,
    literal_column,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ....errors import WorkflowStoreError
from ..base import DriverCall, MigrationRunner, StoreDialect
from ..errors import ErrorInfo
from ..options import EngineOptions
from ..types import UtcDateTime
from .connection import FILE, File, connector, moved_error, switch_to_wal
from .errors import classify_error, overwrite_failed_commit, raise_if_unknown, raise_read_error
from .migration_lock import migration_lock
from .parameters import check_parameters

if TYPE_CHECKING:
    import aiosqlite
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["SQLITE"]

_T = TypeVar("_T")

_IN_MEMORY = {("mode", "memory"), ("vfs", "memdb")}
"""The URI parameters of a database in memory: https://sqlite.org/inmemorydb.html."""

_TIME_LENGTH = len("2026-01-31 23:59:59.000000")


class _Sqlite(StoreDialect):
    name = "sqlite"
    migrates_at_opening = True
    supports_schema = False
    migrates_in_one_transaction = True  # the lock is a transaction
    enforces_foreign_keys = False  # a caller's connection may have them off
    reads_in_one_statement = False  # a UNION copies each row, at 0.5 microseconds

    def check_url(self, url: URL) -> None:
        check_parameters(url)

    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        engine = create_async_engine(
            url.set(drivername="sqlite+aiosqlite"),
            # A database in memory lives in one connection, which is never shared and never
            # dropped. SQLAlchemy's default pool would mix transactions on it.
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1 if self.is_in_memory(url) else options["pool_size"],
            max_overflow=0,
            pool_use_lifo=True,  # the last used connection has its statements cached
            # No call leaves a transaction open; a reset would cost a thread hop per use.
            pool_reset_on_return=None,
            pool_timeout=options["pool_timeout_s"],
            connect_args={
                "async_creator_fn": connector(),
                "timeout": options["busy_timeout_s"],
                # sqlite3 would begin transactions automatically, and as reads:
                # https://docs.python.org/3/library/sqlite3.html#transaction-control
                "isolation_level": None,
            },
            hide_parameters=True,
        )

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            # The cascade from run to steps is off by default, and set per connection:
            # https://sqlite.org/foreignkeys.html#fk_enable
            cursor.execute("PRAGMA foreign_keys=ON")
            # FULL syncs the log at every commit, NORMAL only at checkpoints:
            # https://sqlite.org/pragma.html#pragma_synchronous
            cursor.execute(f"PRAGMA synchronous={options['synchronous']}")
            cursor.close()

        return engine

    def file_is_missing(self, url: URL) -> bool:
        if self.is_in_memory(url) or "mode" in url.query:  # the mode decides about a missing file
            return False
        return not Path((url.database or "").removeprefix("file:")).exists()

    def is_in_memory(self, url: URL) -> bool:
        # A SQLite URI may have parameters of its own, beside those of the URL.
        path, _, query = (url.database or "").removeprefix("file:").partition("?")
        parameters = {*parse_qsl(query)}
        for name, values in url.normalized_query.items():
            parameters |= {(name, value) for value in values}
        return path in {"", ":memory:"} or not parameters.isdisjoint(_IN_MEMORY)

    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        if self.is_in_memory(engine.url):
            return
        arguments, keywords = engine.dialect.create_connect_args(engine.url)
        # With sqlite3 in a thread: an aiosqlite connection that cannot be opened leaves its
        # thread behind, which fails if the event loop is closed before the thread ends.
        mode = await asyncio.to_thread(
            switch_to_wal, arguments, keywords, options["busy_timeout_s"]
        )
        if mode != "wal":
            raise WorkflowStoreError(
                f"{engine.url.database!r} cannot use a write-ahead log (its journal mode is "
                f"{mode!r}): put the file on a local disk, and open it for writing."
            )

    async def rejection(self, connection: AsyncConnection) -> None:
        return None

    def insert(self, table: Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def unnest_source(self, columns: Sequence[Column[Any]]) -> None:
        return None

    def now(self, plus_s: ColumnElement[float] | None = None) -> ColumnElement[datetime]:
        # The clock of the machine, in milliseconds (https://sqlite.org/lang_datefunc.html).
        format_ = literal_column("'%Y-%m-%d %H:%M:%f000'", Text)
        later = [] if plus_s is None else [func.printf(literal_column("'%.6f seconds'"), plus_s)]
        return func.strftime(format_, literal_column("'now'", Text), *later, type_=UtcDateTime)

    def encode_datetime(self, time: datetime) -> str:
        # The format of SQLAlchemy's DateTime; of fixed length, so that text order is time order.
        return time.isoformat(" ", "microseconds")[:_TIME_LENGTH]

    def decode_datetime(self, value: str) -> datetime:
        if len(value) != _TIME_LENGTH:  # written by another program, perhaps with an offset
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return datetime.fromisoformat(value + "Z")  # six times as fast as `replace`

    def is_closed(self, driver: aiosqlite.Connection) -> bool:
        return False

    def known_session(self, connection: PoolProxiedConnection) -> object:
        return self  # a connection is a session, whose thread ends each transaction

    async def open_session(
        self, connection: PoolProxiedConnection, options: EngineOptions
    ) -> object:
        return self

    def attempt_limit_s(self, options: EngineOptions) -> float:
        return options["busy_timeout_s"] + options["pool_timeout_s"]

    async def end_session(
        self, driver: aiosqlite.Connection, session: object, options: EngineOptions
    ) -> bool:
        await _in_its_thread(driver, overwrite_failed_commit)
        return True

    async def fetch(
        self,
        driver: aiosqlite.Connection,
        calls: Sequence[tuple[str, Sequence[Any]]],
        options: EngineOptions,
        session: object,
        *,
        writes: bool = False,
    ) -> list[Any]:
        def run(connection: sqlite3.Connection) -> list[Any]:
            if len(calls) == 1:
                return connection.execute(*calls[0]).fetchall()
            rows: list[Any] = []
            try:
                if not connection.in_transaction:
                    connection.execute("BEGIN")
                for call in calls:
                    rows += connection.execute(*call).fetchall()
            finally:
                connection.rollback()
            return rows

        return await _in_its_thread(driver, run)

    async def execute(
        self,
        driver: aiosqlite.Connection,
        calls: Sequence[DriverCall],
        options: EngineOptions,
        session: object,
    ) -> list[Any]:
        sql, rows, returns = calls[0]

        def one_by_one(connection: sqlite3.Connection) -> list[Any]:
            if returns:
                return [connection.execute(sql, row).fetchone() for row in rows]
            return [connection.execute(sql, row).rowcount > 0 for row in rows]

        def run(connection: sqlite3.Connection) -> list[Any]:
            if len(calls) == len(rows) == 1 and connection.isolation_level is None:
                return one_by_one(connection)  # an implicit transaction
            try:
                # IMMEDIATE waits for the write lock. A transaction that has read fails at once
                # with "database is locked" if another one wrote meanwhile:
                # https://sqlite.org/lang_transaction.html
                if not connection.in_transaction:
                    connection.execute("BEGIN IMMEDIATE")
                results: list[Any] = [True] * len(rows)
                if returns:
                    results = one_by_one(connection)
                elif connection.executemany(sql, rows).rowcount != len(rows):
                    # `rowcount` is that of all rows together. Start over, one by one, to learn
                    # which rows changed nothing.
                    connection.rollback()
                    connection.execute("BEGIN IMMEDIATE")
                    results = one_by_one(connection)
                for call in calls[1:]:
                    connection.executemany(call.sql, call.rows)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            return results

        return await _in_its_thread(driver, run, writes=True)

    @contextlib.asynccontextmanager
    async def transaction(
        self, connection: AsyncConnection, options: EngineOptions, session: object | None = None
    ) -> AsyncIterator[None]:
        # A caller's engine may begin a read transaction in a listener, which this calls.
        await connection.begin()
        if await _in_transaction(connection):
            await connection.exec_driver_sql("ROLLBACK")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await _in_its_thread(driver, lambda _: None)  # for its check of the file
        await connection.exec_driver_sql("BEGIN" if session is None else "BEGIN IMMEDIATE")
        commits = False
        try:
            yield
            commits = session is not None
            await connection.commit()
        except BaseException as error:
            # A caller's engine may skip the rollback at the end of the connection
            # (skip_autocommit_rollback).
            if await _in_transaction(connection):
                await connection.exec_driver_sql("ROLLBACK")
            if isinstance(error, exc.DBAPIError):
                await _in_its_thread(driver, partial(raise_read_error, error=error))
            if commits:
                raise_if_unknown(error)
            raise

    @contextlib.asynccontextmanager
    async def savepoint(self, connection: AsyncConnection) -> AsyncIterator[None]:
        if not connection.in_transaction():
            await connection.begin()  # the host may have a listener that begins
        # In autocommit mode, nothing has begun a transaction. As a write, as in `execute`. A
        # statement that fails is rolled back automatically.
        if not await _in_transaction(connection):
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield

    def classify_error(self, error: BaseException) -> ErrorInfo:
        return classify_error(error)

    def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[MigrationRunner]:
        return migration_lock(connection, timeout_s, _in_transaction)


async def _in_its_thread(
    driver: aiosqlite.Connection, run: Callable[[sqlite3.Connection], _T], *, writes: bool = False
) -> _T:
    """Run a function in the connection's thread: one hop, whatever the function does.

    The public methods of aiosqlite take a hop of some 100 microseconds per statement and leave
    a transaction open in between; all of them are built on `_execute`. A cancelled caller does
    not stop the thread, so that the function's transaction always ends.
    """
    file: File | None = getattr(driver, FILE, None)  # not on an engine of a caller

    def checked(connection: sqlite3.Connection) -> _T:
        if file is not None:
            try:
                found = os.stat(file.path)  # noqa: PTH116 - faster
                is_there = found.st_ino == file.inode and found.st_dev == file.device
            except FileNotFoundError:
                is_there = False
            if not is_there:
                raise moved_error()
        try:
            return run(connection)
        except sqlite3.DatabaseError as error:
            raise_read_error(connection, error)
            if writes:
                raise_if_unknown(error)
            raise

    result: _T = await driver._execute(checked, driver._conn)  # type: ignore[no-untyped-call] # noqa: SLF001
    return result


async def _in_transaction(connection: AsyncConnection) -> bool:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    return bool(driver.in_transaction)


SQLITE: StoreDialect = _Sqlite()
