"""Everything that differs between SQLite and PostgreSQL, and nothing else.

A statement, a row and a migration are written once for both; what they need to know of the
database they ask of a `StoreDialect`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    Table,
    Text,
    cast,
    event,
    exc,
    text,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.types import TypeDecorator, UserDefinedType

from ..errors import StoreUnavailableError, WorkflowStoreError

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Diagnosis",
    "EngineOptions",
    "Fault",
    "Identifier",
    "JsonText",
    "Sequence",
    "StoreDialect",
    "UtcDateTime",
    "complete_options",
]


# -- column types ----------------------------------------------------------------------

# Byte order whatever the server's locale is: an upgrade of its C library must not change
# the order of an index. SQLite compares bytes by default.
Identifier = Text(collation="C").with_variant(Text(), "sqlite")

# On SQLite an INTEGER PRIMARY KEY is the rowid itself: no second index.
Sequence = BigInteger().with_variant(Integer(), "sqlite")


class JsonText(UserDefinedType[str]):
    """JSON text that comes back as it was: `json` on PostgreSQL, `TEXT` on SQLite.

    Not `jsonb`, which drops the order of keys, `-0.0`, NUL and lone surrogates; not `JSON`
    on SQLite, whose numeric affinity would turn the text `1.0` into the integer 1. The
    casts keep the text from any codec for `json` that the connection's owner may have set.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def bind_expression(self, bindvalue: Any) -> ColumnElement[str]:
        return cast(cast(type_coerce(bindvalue, Text), Text), self)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        return cast(column, Text)


@compiles(JsonText, "sqlite")
def _json_on_sqlite(type_: JsonText, compiler: Any, **_: Any) -> str:
    return "TEXT"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: `timestamptz` on PostgreSQL, ISO 8601 text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        # SQLite's text has no offset; PostgreSQL's driver answers in UTC already.
        return None if value is None else value.replace(tzinfo=UTC)


# -- options ---------------------------------------------------------------------------


class EngineOptions(TypedDict, total=False):
    """How the store's own engine is made; an option of the other database has no effect.

    Attributes:
        pool_size: connections at most; 10 by default. In memory, SQLite has one.
        pool_timeout_s: seconds to wait for a free connection; 30 by default.
        synchronous: SQLite only. `"FULL"`, the default, survives loss of power; with
            `"NORMAL"` the last commits may be lost then, though never the file.
        busy_timeout_s: SQLite only. Seconds to wait for another process's write; 30 by
            default.
        connect_timeout_s: PostgreSQL only. Seconds to wait for a connection; 10 by default.
        statement_timeout_s: PostgreSQL only. Seconds to wait for a statement; 30 by
            default.
        transaction_pooler: PostgreSQL only. True behind a pooler in transaction mode, such
            as pgbouncer: no prepared statement outlives its transaction.
    """

    pool_size: int
    pool_timeout_s: float
    synchronous: Literal["FULL", "NORMAL"]
    busy_timeout_s: float
    connect_timeout_s: float
    statement_timeout_s: float
    transaction_pooler: bool


_DEFAULTS: EngineOptions = {
    "pool_size": 10,
    "pool_timeout_s": 30.0,
    "synchronous": "FULL",
    "busy_timeout_s": 30.0,
    "connect_timeout_s": 10.0,
    "statement_timeout_s": 30.0,
    "transaction_pooler": False,
}


def complete_options(options: EngineOptions) -> EngineOptions:
    """Add the defaults.

    Raises:
        ValueError: an option is unknown or out of range.
    """
    for name, value in options.items():
        if name not in _DEFAULTS:
            raise ValueError(f"there is no option {name!r}; there are {', '.join(_DEFAULTS)}")
        if name == "synchronous":
            valid = value in {"FULL", "NORMAL"}
        elif name == "transaction_pooler":
            valid = isinstance(value, bool)
        else:
            valid = isinstance(value, int | float) and value > 0
        if not valid:
            raise ValueError(f"{name}={value!r} is out of range")
    return {**_DEFAULTS, **options}


# -- the two databases -----------------------------------------------------------------


class Fault(enum.Enum):
    """What an error of the database means to a store."""

    TRANSIENT = "worth another try at once"
    UNAVAILABLE = "not reached, locked or timed out; another try now would not help"
    RUN_MISSING = "a step refers to a run that is not there"
    SCHEMA = "the tables are not as expected"
    OTHER = "anything else"


class Diagnosis(NamedTuple):
    """What an error of the database means, its name, and what a person can do about it."""

    fault: Fault
    name: str
    advice: str


class StoreDialect(ABC):
    """What one database does in its own way."""

    name: ClassVar[str]
    migrates_at_opening: ClassVar[bool]
    supports_schema: ClassVar[bool]
    migrates_in_one_transaction: ClassVar[bool]

    @abstractmethod
    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        """Make the store's own engine."""

    @abstractmethod
    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        """Do what the store's own database needs once, before it is used."""

    @abstractmethod
    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Give an insert that knows `on_conflict_do_update`."""

    @abstractmethod
    async def begin_write(self, connection: AsyncConnection) -> None:
        """Begin a transaction whose first statement writes."""

    @abstractmethod
    def diagnose(self, error: BaseException) -> Diagnosis:
        """Tell what an error means, by its code and never by its text."""

    @abstractmethod
    def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep every other migration of these tables out for as long as the block runs.

        Raises:
            StoreUnavailableError: another one holds the lock for longer than the timeout.
        """


class _Sqlite(StoreDialect):
    name = "sqlite"
    migrates_at_opening = True
    supports_schema = False
    migrates_in_one_transaction = True  # the lock is a transaction

    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        in_memory = self._is_in_memory(url)
        engine = create_async_engine(
            url.set(drivername="sqlite+aiosqlite"),
            # One connection is the whole database in memory: it is never shared and never
            # dropped. SQLAlchemy's default there lets transactions mix on one connection.
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1 if in_memory else options["pool_size"],
            max_overflow=0,
            pool_timeout=options["pool_timeout_s"],
            connect_args={
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

    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        if self._is_in_memory(engine.url):
            return
        deadline = time.monotonic() + options["busy_timeout_s"]
        async with engine.connect() as connection:
            # The write-ahead log lets readers work beside the writer. The file remembers it,
            # and the switch itself takes a lock for which SQLite does not wait.
            while True:
                try:
                    mode = await connection.scalar(text("PRAGMA journal_mode=WAL"))
                except exc.OperationalError as error:
                    busy = self.diagnose(error).name == "SQLITE_BUSY"
                    if not busy or time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.02)
                else:
                    break
        if mode != "wal":
            raise WorkflowStoreError(
                f"{engine.url.database!r} cannot use a write-ahead log (its journal mode is "
                f"{mode!r}): put the file on a local disk that SQLite can map into memory."
            )

    def insert(self, table: Table) -> sqlite.Insert:
        return sqlite.insert(table)

    async def begin_write(self, connection: AsyncConnection) -> None:
        # A transaction that begins as a read and then writes fails at once with "database is
        # locked" where another one wrote in between; one that begins as a write waits. A
        # caller's engine may have begun already, which does no harm before a first write.
        if not await _in_transaction(connection):
            await connection.exec_driver_sql("BEGIN IMMEDIATE")

    def diagnose(self, error: BaseException) -> Diagnosis:
        for cause in _chain(error):
            name = getattr(cause, "sqlite_errorname", None)
            if name is not None:
                # An extended code, such as SQLITE_IOERR_WRITE, begins with the primary one.
                primary = "_".join(name.split("_")[:2])
                fault, advice = (
                    _SQLITE_CODES.get(name) or _SQLITE_CODES.get(primary) or (Fault.OTHER, "")
                )
                return Diagnosis(fault, name, advice)
        return _diagnose_by_type(error)

    @contextlib.asynccontextmanager
    async def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> AsyncIterator[None]:
        waits_ms = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
        try:
            # A caller's engine may have begun on its own, as a read.
            if await _in_transaction(connection):
                await connection.exec_driver_sql("ROLLBACK")
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.exec_driver_sql(f"PRAGMA busy_timeout={waits_ms}")

    @staticmethod
    def _is_in_memory(url: URL) -> bool:
        return url.database in {None, "", ":memory:"}


async def _in_transaction(connection: AsyncConnection) -> bool:
    raw = await connection.get_raw_connection()
    return bool(raw.driver_connection.in_transaction)  # type: ignore[union-attr]


class _Postgresql(StoreDialect):
    name = "postgresql"
    migrates_at_opening = False
    supports_schema = True
    migrates_in_one_transaction = False  # the lock is the session's

    _IDLE_S = 30.0
    """A connection that was idle for longer is asked whether it lives before it is used."""

    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        import asyncpg

        # The driver reads the URL itself, and so takes what libpq takes: sslmode, several
        # hosts, target_session_attrs, a password file.
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        pooled = options["transaction_pooler"]

        async def connect(**_: Any) -> Any:
            return await asyncpg.connect(
                dsn,
                timeout=options["connect_timeout_s"],
                command_timeout=options["statement_timeout_s"],
                statement_cache_size=0 if pooled else 100,
            )

        arguments: dict[str, Any] = {"async_creator_fn": connect}
        if pooled:
            # Unnamed statements inside a transaction need nothing from the next connection.
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = str
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            pool_size=options["pool_size"],
            max_overflow=0,
            pool_timeout=options["pool_timeout_s"],
            connect_args=arguments,
            hide_parameters=True,
        )

        # A firewall or a restart may have cut a connection that was idle during a long step.
        # A question before every use would cost a round trip each (pool_pre_ping).
        @event.listens_for(engine.sync_engine, "checkin")
        def note_time(_: Any, record: Any) -> None:
            record.info["idle_since"] = time.monotonic()

        @event.listens_for(engine.sync_engine, "checkout")
        def check_idle(connection: Any, record: Any, _: Any) -> None:
            idle_since = record.info.get("idle_since")
            if idle_since is None or time.monotonic() - idle_since < self._IDLE_S:
                return
            try:
                connection.ping()
            except Exception as error:
                raise exc.DisconnectionError from error  # the pool then connects anew

        return engine

    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        pass

    def insert(self, table: Table) -> postgresql.Insert:
        return postgresql.insert(table)

    async def begin_write(self, connection: AsyncConnection) -> None:
        pass  # the first statement begins

    def diagnose(self, error: BaseException) -> Diagnosis:
        for cause in _chain(error):
            code = getattr(cause, "sqlstate", None)
            if isinstance(code, str):
                fault, advice = (
                    _SQLSTATES.get(code) or _SQLSTATES.get(code[:2]) or (Fault.OTHER, "")
                )
                return Diagnosis(fault, f"SQLSTATE {code}", advice)
        return _diagnose_by_type(error)

    @contextlib.asynccontextmanager
    async def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> AsyncIterator[None]:
        # Asked again and again instead of waiting inside the server: a session that waits
        # holds a snapshot, for which CREATE INDEX CONCURRENTLY in the holder would wait.
        key = {"key": f"workflow_store.{schema or ''}"}
        take = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
        give = text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))")
        deadline = time.monotonic() + timeout_s
        while not await connection.scalar(take, key):
            await connection.rollback()
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"Another migration of these tables has been running for over {timeout_s:g} "
                    "seconds. Nothing was changed; wait for it to end, then run this again."
                )
            await asyncio.sleep(0.1)
        # The tables' own locks: fail rather than queue up behind a long query, where every
        # later query would wait behind this one.
        await connection.exec_driver_sql(f"SET lock_timeout = {int(timeout_s * 1000)}")
        await connection.commit()
        try:
            yield
        finally:
            await connection.rollback()
            await connection.exec_driver_sql("RESET lock_timeout")
            await connection.execute(give, key)
            await connection.commit()


_AGAIN = "It did not pass by itself; call again later."
_SCHEMA = "The tables are not those of a workflow store."

# https://www.sqlite.org/rescode.html
_SQLITE_CODES = {
    "SQLITE_BUSY": (
        Fault.UNAVAILABLE,  # the busy timeout has passed already
        "Another process has been writing for longer than `busy_timeout_s`: end it, or wait.",
    ),
    "SQLITE_BUSY_RECOVERY": (Fault.TRANSIENT, _AGAIN),
    "SQLITE_BUSY_SNAPSHOT": (Fault.TRANSIENT, _AGAIN),
    "SQLITE_CANTOPEN": (
        Fault.UNAVAILABLE,
        "Check that the folder exists and that this user may write to it and to the file.",
    ),
    "SQLITE_CONSTRAINT_FOREIGNKEY": (Fault.RUN_MISSING, ""),
    "SQLITE_CORRUPT": (Fault.OTHER, "The file is damaged: restore it from a backup."),
    "SQLITE_ERROR": (Fault.SCHEMA, _SCHEMA),  # the code for a missing table or column
    "SQLITE_FULL": (Fault.OTHER, "The disk is full: nothing was written; free some space."),
    "SQLITE_IOERR": (Fault.UNAVAILABLE, "The disk failed to read or write: check it."),
    "SQLITE_LOCKED": (Fault.TRANSIENT, _AGAIN),
    "SQLITE_NOTADB": (Fault.OTHER, "The file is not a SQLite database: check the URL."),
    "SQLITE_READONLY": (Fault.OTHER, "This user may not write to the file or to its folder."),
    "SQLITE_TOOBIG": (Fault.OTHER, "A value is larger than SQLite takes (1 GB by default)."),
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html, by code or by class
_SQLSTATES = {
    "08": (Fault.TRANSIENT, _AGAIN),  # connection exception
    "23503": (Fault.RUN_MISSING, ""),  # foreign_key_violation
    "25006": (
        Fault.UNAVAILABLE,  # read_only_sql_transaction
        "The server is a standby or was made read-only: name the primary in the URL.",
    ),
    "26000": (
        Fault.TRANSIENT,  # invalid_sql_statement_name
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "28": (Fault.UNAVAILABLE, "Check the user and the password in the URL."),
    "3D000": (Fault.UNAVAILABLE, "There is no such database: create it, or check the URL."),
    "3F000": (Fault.SCHEMA, _SCHEMA),  # invalid_schema_name
    "40001": (Fault.TRANSIENT, _AGAIN),  # serialization_failure
    "40P01": (Fault.TRANSIENT, _AGAIN),  # deadlock_detected
    "42501": (Fault.OTHER, "The database's user lacks a right: grant it, or use another user."),
    "42703": (Fault.SCHEMA, _SCHEMA),  # undefined_column
    "42P01": (Fault.SCHEMA, _SCHEMA),  # undefined_table
    "42P05": (
        Fault.TRANSIENT,  # duplicate_prepared_statement
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "53100": (Fault.OTHER, "The server's disk is full: nothing was written; free some space."),
    "53300": (
        Fault.TRANSIENT,  # too_many_connections
        "Raise the server's max_connections or lower `pool_size`.",
    ),
    "54000": (Fault.OTHER, "A value is larger than PostgreSQL takes (1 GB)."),
    "55P03": (Fault.UNAVAILABLE, "A lock stayed taken: wait for the other session, or end it."),
    "57014": (Fault.UNAVAILABLE, "The statement ran into a time limit or was canceled."),
    "57P01": (Fault.TRANSIENT, _AGAIN),  # admin_shutdown
    "57P02": (Fault.TRANSIENT, _AGAIN),  # crash_shutdown
    "57P03": (Fault.TRANSIENT, _AGAIN),  # cannot_connect_now
    "57P05": (Fault.TRANSIENT, _AGAIN),  # idle_session_timeout
}


def _diagnose_by_type(error: BaseException) -> Diagnosis:
    """Diagnose what carries no code: the network, the pool, a connection that is gone."""
    for cause in _chain(error):
        name = type(cause).__name__
        if isinstance(cause, exc.TimeoutError):
            return Diagnosis(
                Fault.UNAVAILABLE,
                "no connection became free",
                "Raise `pool_size` or `pool_timeout_s`, or make fewer calls at once.",
            )
        if isinstance(cause, TimeoutError):
            return Diagnosis(
                Fault.UNAVAILABLE, "timed out", "Check the server's load and the network."
            )
        if isinstance(cause, OSError):
            return Diagnosis(
                Fault.TRANSIENT,
                name,
                "Check that the server runs and that host and port in the URL are right.",
            )
        if isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
            return Diagnosis(Fault.TRANSIENT, "the connection was lost", _AGAIN)
    return Diagnosis(Fault.OTHER, type(error).__name__, "The cause says more.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = getattr(current, "orig", None) or current.__cause__


SQLITE: StoreDialect = _Sqlite()
POSTGRESQL: StoreDialect = _Postgresql()
