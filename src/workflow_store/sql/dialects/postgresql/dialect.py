"""PostgreSQL through asyncpg."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    URL,
    Column,
    ColumnElement,
    FromClause,
    Table,
    Text,
    bindparam,
    cast,
    event,
    exc,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..base import DriverCall, MigrationRunner, StoreDialect
from ..errors import ErrorInfo, ErrorKind
from ..options import EngineOptions
from ..types import JsonText, UtcDateTime
from .errors import classify_error
from .hosts import Host, connect_to_first_available, hosts_of, with_explicit_ports
from .migration_lock import migration_lock
from .parameters import check_parameters
from .sessions import KEY, Known, Session, end_session, open_session
from .timeouts import (
    GRACE_S,
    bounded_transaction,
    closing_limit,
    raise_if_unknown,
    resync,
    time_limit,
    watchdog,
)

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.pool import PoolProxiedConnection

__all__ = ["POSTGRESQL"]

_OWN = "workflow_store_own"
"""The execution option of a store's own engine, unlike an engine of a caller."""


def _is_own(engine: AsyncEngine) -> bool:
    """Return whether an engine is a store's own, whose pool and connections have limits."""
    return bool(engine.get_execution_options().get(_OWN))


class _Postgresql(StoreDialect):
    name = "postgresql"
    migrates_at_opening = False
    supports_schema = True
    migrates_in_one_transaction = False  # the lock is the session's
    enforces_foreign_keys = True
    reads_in_one_statement = True  # a second one costs a round trip and a transaction

    IDLE_S = 30.0
    """A connection that was idle for longer is pinged before it is used."""

    def check_url(self, url: URL) -> None:
        hosts_of(url)
        check_parameters(url)

    def create_engine(self, url: URL, options: EngineOptions) -> AsyncEngine:
        import asyncpg

        from .connection import Connection

        # asyncpg parses the URL itself, with libpq's parameters: sslmode,
        # target_session_attrs, passfile.
        hosts = hosts_of(url)
        if len(hosts) > 1:
            url = with_explicit_ports(url, hosts)
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        pooled = options["transaction_pooler"]

        async def connect_to(host: Host | None) -> Any:
            connection = await asyncpg.connect(
                dsn,
                host=host and host.name,
                port=host and host.port,
                timeout=options["connect_timeout_s"],
                statement_cache_size=0 if pooled else 100,
                connection_class=Connection,
            )
            connection.terminate_unless_used(options["connect_timeout_s"])
            return connection

        async def connect(**_: Any) -> Any:
            if not hosts:
                return await connect_to(None)
            return await connect_to_first_available(
                hosts,
                connect_to,
                # After a rejected password, the other hosts are not tried.
                lambda error: (
                    isinstance(error, OSError | asyncpg.TargetServerAttributeNotMatched)
                    or self.classify_error(error).kind is ErrorKind.TRANSIENT
                ),
            )

        arguments: dict[str, Any] = {"async_creator_fn": connect}
        if pooled:
            # Unnamed statements do not outlive their transaction:
            # https://magicstack.github.io/asyncpg/current/faq.html
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = str
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            pool_size=options["pool_size"],
            max_overflow=0,
            pool_use_lifo=True,  # the last used connection has its statements prepared
            pool_timeout=options["pool_timeout_s"],
            connect_args=arguments,
            hide_parameters=True,
            execution_options={_OWN: True},
        )

        # A firewall or a restart may have cut a connection that was idle during a long step.
        # pool_pre_ping would cost a round trip per use.
        @event.listens_for(engine.sync_engine, "checkin")
        def note_time(_: Any, record: Any) -> None:
            record.info["idle_since"] = time.monotonic()

        @event.listens_for(engine.sync_engine, "checkout")
        def check_idle(connection: Any, record: Any, _: Any) -> None:
            connection.driver_connection.mark_used()
            idle_since = record.info.get("idle_since")
            if idle_since is None or time.monotonic() - idle_since < self.IDLE_S:
                return
            try:
                with watchdog(connection.driver_connection, options["connect_timeout_s"]):
                    connection.ping()
            except Exception as error:
                raise exc.DisconnectionError from error  # the pool then reconnects

        return engine

    def file_is_missing(self, url: URL) -> bool:
        return False

    def is_in_memory(self, url: URL) -> bool:
        return False

    async def prepare(self, engine: AsyncEngine, options: EngineOptions) -> None:
        pass

    def checkout_limit(
        self, engine: AsyncEngine, options: EngineOptions
    ) -> contextlib.AbstractContextManager[None]:
        if _is_own(engine):
            return contextlib.nullcontext()
        return time_limit(options["statement_timeout_s"] + GRACE_S, engine)

    def checkin_limit(
        self, engine: AsyncEngine, driver: Any
    ) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if _is_own(engine) else closing_limit(driver, engine)

    async def rejection(self, connection: AsyncConnection) -> str | None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # The server reports it when a connection is made. A pooler may leave it out.
        encoding = getattr(driver.get_settings(), "server_encoding", "UTF8")
        if encoding == "UTF8":
            return None
        return (
            f"its encoding is {encoding}, which lacks characters or does not check them: create "
            "another with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'."
        )

    def insert(self, table: Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def unnest_source(self, columns: Sequence[Column[Any]]) -> FromClause:
        # One array per column: four times as fast as a multi-row VALUES.
        arrays = [
            bindparam(c.name, type_=ARRAY(Text if isinstance(c.type, JsonText) else c.type))
            for c in columns
        ]
        names = [c.name for c in columns]
        return func.unnest(*arrays).table_valued(*names).render_derived(name="given")

    def now(self, plus_s: ColumnElement[float] | None = None) -> ColumnElement[datetime]:
        # Not `now()`, the begin of a transaction that may have waited for a lock since:
        # https://www.postgresql.org/docs/current/functions-datetime.html
        now: ColumnElement[datetime] = func.clock_timestamp(type_=UtcDateTime)
        if plus_s is None:
            return now
        return cast(now + plus_s * literal_column("interval '1 second'"), UtcDateTime)

    def encode_datetime(self, time: datetime) -> datetime:
        return time

    def decode_datetime(self, value: datetime) -> datetime:
        # asyncpg stores the first and the last datetime as infinities and returns those without
        # a time zone.
        return value if value.tzinfo is UTC else value.replace(tzinfo=UTC)

    def is_closed(self, driver: asyncpg.Connection) -> bool:
        return bool(driver.is_closed())

    def known_session(self, connection: PoolProxiedConnection) -> Session | None:
        # A statement that is sent over a connection which the server has closed has an unknown
        # outcome. What the server sent is in the socket, if the event loop was busy.
        known: Known | None = connection.info.get(KEY)
        if known is None or known.poll is None or known.poll.poll(0):
            return None
        return known.next_session() if known.pooled else known.session

    async def open_session(
        self, connection: PoolProxiedConnection, options: EngineOptions
    ) -> Session | None:
        return await open_session(
            connection, options["statement_timeout_s"], pooled=options["transaction_pooler"]
        )

    def attempt_limit_s(self, options: EngineOptions) -> float:
        return options["statement_timeout_s"]

    async def end_session(
        self, driver: asyncpg.Connection, session: Session | None, options: EngineOptions
    ) -> bool:
        return await end_session(driver, session, options["statement_timeout_s"])

    async def fetch(
        self,
        driver: asyncpg.Connection,
        calls: Sequence[tuple[str, Sequence[Any]]],
        options: EngineOptions,
        session: Session,
        *,
        writes: bool = False,
    ) -> list[Any]:
        ((sql, arguments),) = calls
        limit_s = options["statement_timeout_s"]
        begin = None if session.lock is None else session.begin if writes else "BEGIN"
        async with bounded_transaction(
            driver, limit_s, begin=begin, session=session if writes else None
        ):
            rows: list[Any] = await driver.fetch(sql, *arguments, timeout=limit_s)
        return rows

    async def execute(
        self,
        driver: asyncpg.Connection,
        calls: Sequence[DriverCall],
        options: EngineOptions,
        session: Session,
    ) -> list[Any]:
        limit_s = options["statement_timeout_s"]

        async def run(call: DriverCall) -> list[Any]:
            if call.returns:
                return [await driver.fetchrow(call.sql, *r, timeout=limit_s) for r in call.rows]
            tags = [await driver.execute(call.sql, *row, timeout=limit_s) for row in call.rows]
            return [not tag.endswith(" 0") for tag in tags]  # such as "INSERT 0 1"

        # Outside of a transaction, a pooler in transaction mode may send Parse and Execute of a
        # statement to two servers.
        explicit = len(calls) > 1 or len(calls[0].rows) > 1 or session.lock is not None
        begin = session.begin if explicit else None
        async with bounded_transaction(driver, limit_s, begin=begin, session=session):
            first, *_ = [await run(call) for call in calls]
        return first

    @contextlib.asynccontextmanager
    async def transaction(
        self, connection: AsyncConnection, options: EngineOptions, session: Session | None = None
    ) -> AsyncIterator[None]:
        limit_s = options["statement_timeout_s"]
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # A caller's engine may be in autocommit mode. Reads see one snapshot.
        level = "REPEATABLE READ" if session is None else "READ COMMITTED"
        await connection.execution_options(isolation_level=level)
        commits = False
        with watchdog(driver, limit_s + GRACE_S) as reset:

            def statement_ended(*_: object) -> None:
                reset()

            event.listen(connection.sync_connection, "after_cursor_execute", statement_ended)
            try:
                await connection.execute(
                    text("SELECT set_config('statement_timeout', :limit, true)"),
                    {"limit": f"{max(1, int(limit_s * 1000))}ms"},
                )
                if session is not None and session.lock is not None:
                    await connection.execute(select(func.pg_advisory_xact_lock(session.lock)))
                yield
                commits = True
                reset()
                await connection.commit()
            except BaseException as error:
                if commits and session is not None:
                    if not driver.is_closed():
                        await resync(driver, "ROLLBACK")
                    raise_if_unknown(error, driver, session)
                await connection.rollback()  # inside the watchdog
                raise
            finally:
                event.remove(connection.sync_connection, "after_cursor_execute", statement_ended)

    def savepoint(self, connection: AsyncConnection) -> contextlib.AbstractAsyncContextManager[Any]:
        return connection.begin_nested()

    def classify_error(self, error: BaseException) -> ErrorInfo:
        return classify_error(error)

    def migration_lock(
        self, connection: AsyncConnection, schema: str | None, timeout_s: float
    ) -> contextlib.AbstractAsyncContextManager[MigrationRunner]:
        return migration_lock(connection, schema, timeout_s)


POSTGRESQL: StoreDialect = _Postgresql()
