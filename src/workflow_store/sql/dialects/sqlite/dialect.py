"""SQLite, through aiosqlite."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
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
from ..base import Call, ErrorInfo, MigrationRunner, StoreDialect
from ..health import Check
from ..options import EngineOptions
from ..types import UtcDateTime
from .errors import classify_error
from .health import CHECKS, read_only

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["SQLITE"]

_T = TypeVar("_T")

_IN_MEMORY = {("mode", "memory"), ("vfs", "memdb")}
"""The options with which SQLite keeps nothing in a file."""

_LENGTH_OF_TIME = len("2026-01-31 23:59:59.000000")


class _Sqlite(StoreDialect):
    name = "sqlite"
    migrates_at_opening = True
    supports_schema = False
    migrates_in_one_transaction = True  # the lock is a transaction
    enforces_foreign_keys = False  # a caller's connection may have them off
    reads_in_one_statement = False  # a UNION copies every row, at 0.5 microseconds

    def check_url(self, url: URL) -> None:
        pass

    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        in_memory = self._is_in_memory(url)
        engine = create_async_engine(
            url.set(drivername="sqlite+aiosqlite"),
            # One connection is the whole database in memory: it is never shared and never
            # dropped. SQLAlchemy's default there lets transactions mix on one connection.
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1 if in_memory else options["pool_size"],
            max_overflow=0,
            pool_use_lifo=True,  # a connection that was just used has its statements at hand
            # Nothing leaves a transaction open, so that a thread hop per use is spared.
            pool_reset_on_return=None,
            pool_timeout=options["pool_timeout_s"],
            connect_args={
                "async_creator_fn": _connected,
                "timeout": options["busy_timeout_s"],
                # sqlite3 would begin transactions by itself, and as reads.
                "isolation_level": None,
            },
            hide_parameters=True,
        )

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            # Off by default in SQLite, and per connection: the cascade from run to steps.
            cursor.execute("PRAGMA foreign_keys=ON")
            # Per connection too. FULL syncs the log at every commit; NORMAL only at checkpoints.
            cursor.execute(f"PRAGMA synchronous={options['synchronous']}")
            cursor.close()

        return engine

    def file_is_missing(self, url: URL) -> bool:
        if self._is_in_memory(url) or "mode" in url.query:  # which says what is to be made
            return False
        return not Path((url.database or "").removeprefix("file:")).exists()

    def is_in_memory(self, url: URL) -> bool:
        # A URI of SQLite may bring options along, beside those of the URL.
        path, _, options = (url.database or "").removeprefix("file:").partition("?")
        given = {*parse_qsl(options)}
        given |= {(name, value) for name, some in url.normalized_query.items() for value in some}
        return path in {"", ":memory:"} or not given.isdisjoint(_IN_MEMORY)

    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        if self._is_in_memory(engine.url):
            return
        arguments, keywords = engine.dialect.create_connect_args(engine.url)
        # In a thread of its own: a connection of aiosqlite that cannot be opened leaves one
        # behind, which complains when the event loop is closed before it has ended.
        mode = await asyncio.to_thread(
            _switch_to_wal, arguments, keywords, options["busy_timeout_s"]
        )
        if mode != "wal":
            raise WorkflowStoreError(
                f"{engine.url.database!r} cannot use a write-ahead log (its journal mode is "
                f"{mode!r}): put the file on a local disk, and open it for writing."
            )

    def insert(self, table: Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def unnest_source(self, columns: Sequence[Column[Any]]) -> None:
        return None

    def now(self, plus_s: ColumnElement[float] | None = None) -> ColumnElement[datetime]:
        # SQLite's clock, that of the machine, has milliseconds.
        format_ = literal_column("'%Y-%m-%d %H:%M:%f000'", Text)
        later = [] if plus_s is None else [func.printf(literal_column("'%.6f seconds'"), plus_s)]
        return func.strftime(format_, literal_column("'now'", Text), *later, type_=UtcDateTime)

    def encode_datetime(self, time: datetime) -> str:
        # What SQLAlchemy's DateTime writes; of one length, so that text order is time order.
        return time.isoformat(" ", "microseconds")[:_LENGTH_OF_TIME]

    def decode_datetime(self, value: str) -> datetime:
        if len(value) != _LENGTH_OF_TIME:  # somebody's own, perhaps with an offset
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return datetime.fromisoformat(value + "Z")  # a sixth of what `replace` takes

    def is_closed(self, driver: aiosqlite.Connection) -> bool:
        return False

    async def fetch(
        self,
        driver: aiosqlite.Connection,
        calls: Sequence[tuple[str, Sequence[Any]]],
        options: EngineOptions,
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
        calls: Sequence[Call],
        options: EngineOptions,
    ) -> list[Any]:
        sql, rows, returns = calls[0]

        def each_alone(connection: sqlite3.Connection) -> list[Any]:
            if returns:
                return [connection.execute(sql, row).fetchone() for row in rows]
            return [connection.execute(sql, row).rowcount > 0 for row in rows]

        def run(connection: sqlite3.Connection) -> list[Any]:
            if len(calls) == len(rows) == 1 and connection.isolation_level is None:
                return each_alone(connection)  # a transaction by itself
            try:
                # Beginning as a write waits for the lock. A transaction that read before fails
                # at once with "database is locked" where another one wrote in between.
                if not connection.in_transaction:
                    connection.execute("BEGIN IMMEDIATE")
                each: list[Any] = [True] * len(rows)
                if returns:
                    each = each_alone(connection)
                elif connection.executemany(sql, rows).rowcount != len(rows):
                    # It counts all rows together. Which ones changed nothing is found the
                    # slow way, from the beginning.
                    connection.rollback()
                    connection.execute("BEGIN IMMEDIATE")
                    each = each_alone(connection)
                for call in calls[1:]:
                    connection.executemany(call.sql, call.rows)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            return each

        return await _in_its_thread(driver, run)

    @contextlib.asynccontextmanager
    async def transaction(
        self, connection: AsyncConnection, options: EngineOptions, *, writes: bool
    ) -> AsyncIterator[None]:
        # A caller's engine may begin on its own, as a read, in a listener that this calls.
        await connection.begin()
        if await _in_transaction(connection):
            await connection.exec_driver_sql("ROLLBACK")
        await connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield
            await connection.commit()
        except BaseException:
            # A caller's engine may skip it at the connection's end (skip_autocommit_rollback).
            if await _in_transaction(connection):
                await connection.exec_driver_sql("ROLLBACK")
            raise

    @contextlib.asynccontextmanager
    async def savepoint(self, connection: AsyncConnection) -> AsyncIterator[None]:
        if not connection.in_transaction():
            await connection.begin()  # the host may have a listener that begins in its own way
        # Where the driver is in autocommit, nobody else begins. As a write, as in `execute`.
        # A statement that fails is undone by itself.
        if not await _in_transaction(connection):
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield

    def classify_error(self, error: BaseException) -> ErrorInfo:
        return classify_error(error)

    @contextlib.asynccontextmanager
    async def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> AsyncIterator[MigrationRunner]:
        waits_ms = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
        # Short waits in a loop, so that a cancelled migration ends soon.
        await connection.exec_driver_sql("PRAGMA busy_timeout=50")
        deadline = time.monotonic() + timeout_s
        try:
            # A caller's engine may have begun a transaction, which does not lock the file.
            if await _in_transaction(connection):
                await connection.exec_driver_sql("ROLLBACK")
            while True:
                try:
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                except exc.OperationalError as error:
                    if (
                        self.classify_error(error).name != "SQLITE_BUSY"
                        or time.monotonic() > deadline
                    ):
                        raise
                    await asyncio.sleep(0.05)
                else:
                    break
            # Without a write-ahead log, the commit waits for readers to end.
            await connection.exec_driver_sql(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
            yield connection.run_sync
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.exec_driver_sql(f"PRAGMA busy_timeout={waits_ms}")

    def partitioned(self, connection: Connection, schema: str | None) -> Set[str]:
        return set()

    @property
    def checks(self) -> Mapping[str, Check]:
        return CHECKS

    def read_only(
        self, connection: AsyncConnection, limit_s: float
    ) -> contextlib.AbstractAsyncContextManager[None]:
        return read_only(connection, limit_s)

    @staticmethod
    def _is_in_memory(url: URL) -> bool:
        return url.database in {None, "", ":memory:"}


async def _connected(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
    """Connect; where that fails, leave no thread behind.

    It would complain, with a traceback, where the event loop is closed before it has ended.
    """
    import aiosqlite

    connection = aiosqlite.connect(*arguments, **keywords)
    thread = connection._thread  # noqa: SLF001 - it has no other name
    thread.daemon = True  # as SQLAlchemy has it
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join)
        raise


def _switch_to_wal(arguments: Sequence[Any], keywords: Mapping[str, Any], timeout_s: float) -> str:
    """Turn on the write-ahead log, with which readers work beside the writer.

    The file remembers it. The switch itself takes a lock for which SQLite does not wait, so
    that several processes that open a new file must take turns by themselves.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(
        sqlite3.connect(*arguments, **{**keywords, "timeout": timeout_s})
    ) as connection:
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return str(mode)


async def _in_transaction(connection: AsyncConnection) -> bool:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    return bool(driver.in_transaction)


async def _in_its_thread(
    driver: aiosqlite.Connection, run: Callable[[sqlite3.Connection], _T]
) -> _T:
    """Run a function in the connection's thread: one hop, whatever it does there.

    The driver's public methods take a hop for each statement, at some 100 microseconds, and
    leave a transaction open in between; `_execute` is what each of them is made of. A
    cancelled caller does not stop the thread, so the function's transaction always ends.
    """
    result: _T = await driver._execute(run, driver._conn)  # type: ignore[no-untyped-call] # noqa: SLF001
    return result


SQLITE: StoreDialect = _Sqlite()
