"""Runs statements on an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from ..errors import StoreClosedError, StoreUnavailableError, WorkflowStoreError
from . import migrate
from .dialects import DriverCall, EngineOptions, ErrorKind, UnknownOutcomeError
from .errors import to_store_error
from .executor import Executor, RowMaker
from .group_commit import GroupCommit, Row
from .queries.compiler import Read, Write
from .queries.statements import Statements
from .retry import RetryPolicy
from .unsettled import Doubt, Unsettled
from .urls import DatabaseUrl

if TYPE_CHECKING:
    from .telemetry.spans import PendingWrite, Telemetry

__all__ = ["Database", "shielded"]

_SETTLE_S = 1.0
"""How long a batch waits for the end of a session, and how long it reads back at most."""

_T = TypeVar("_T")
_P = ParamSpec("_P")


class Database(Executor):
    """An open database: group commit, retries, and errors of this package.

    Statements bypass SQLAlchemy's execution and use raw connections of the engine's pool: one
    thread hop on SQLite and one round trip on PostgreSQL, instead of five hops and three round
    trips through `AsyncEngine.begin()`. The engine is disposed by its owner.

    An attempt whose outcome is unknown, because the server did not answer, is never repeated.
    Its session is terminated, and what it was to write is read back.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        url: DatabaseUrl,
        options: EngineOptions,
        *,
        schema: str | None,
        retry: RetryPolicy,
        telemetry: Telemetry | None,
        owns_engine: bool,
        doubts: Iterable[Doubt] = (),
    ) -> None:
        self.engine = engine
        self.dialect = url.dialect
        self.statements = Statements(url.dialect, engine.dialect, schema)
        self.writes = self.statements.writes
        self._url = url
        self._options = options
        self._schema = schema
        self._retry = retry
        self._telemetry = telemetry
        self._owns_engine = owns_engine
        self._group_commit: GroupCommit[Write] = GroupCommit(
            self._commit,
            fails_alone=lambda error: type(error) is WorkflowStoreError,
            succeeds_once=lambda write: write.succeeds_once,
        )
        self._tasks: set[asyncio.Future[Any]] = set()
        self._unsettled = Unsettled(self._end_session)
        for doubt in doubts:  # from before the store was closed
            self._unsettled.doubt(*doubt)
        self._closed = False
        self.loop = asyncio.get_running_loop()

    async def read(self, read: Read, key: Row, *, subject: str = "run") -> list[Row]:
        if self._unsettled.attempts:
            await self._settled((key[0],) if subject == "run" else None)
        return await shielded(
            self._with_retries(lambda: self._fetch(read, key), f" for {subject} {key[0]!r}"),
            self._tasks,
        )

    async def write(
        self, write: Write, make_row: RowMaker[_P], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        note = None if self._telemetry is None else self._telemetry.pending_write()
        if self._unsettled.attempts:  # before it takes room from other runs
            await self._settled((make_row(self.dialect, *args, **kwargs)[0],))
        # `make_row` runs once there is room for the row, so that few rows wait in memory. A
        # closure instead of its arguments would be a third of the memory of a waiting call.
        # Not `async with`, which costs three more calls.
        await self._group_commit.room.acquire()
        try:
            if self._closed:
                raise StoreClosedError("The store was closed while the call was waiting.")
            row = make_row(self.dialect, *args, **kwargs)
            try:
                # The length in characters is about the size in bytes.
                size = sum([len(value) for value in write.payload(row) if value is not None])
                return await self._group_commit.write(write, write.key(row), row, size, note)
            except asyncio.CancelledError:
                if (batch := self._group_commit.batch_under_way()) is not None:
                    self._unsettled.add(batch, (row[0],))
                raise
        finally:
            self._group_commit.room.release()

    async def transaction(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        purpose: str,
        *,
        runs: Collection[str] | None = None,
        writes: bool = True,
    ) -> _T:
        """Run a function in one transaction and return its result after the commit.

        Args:
            work: receives the connection, with the tables in their schema. It is called again
                for each retry.
            purpose: named in an error.
            runs: the runs that it reads or writes; None for any.
            writes: whether it writes.
        """

        async def attempt() -> _T:
            if self._unsettled.attempts:
                await self._settled(runs, doubtful=True)
            async with (
                self._connect() as (connection, session),
                self.dialect.transaction(connection, self._options, session if writes else None),
            ):
                if self._schema is not None:
                    await connection.execution_options(schema_translate_map={None: self._schema})
                return await work(connection)

        async def run() -> _T:
            try:
                return await self._with_retries(attempt, f" for {purpose}")
            except StoreUnavailableError as error:
                if isinstance(error.__cause__, UnknownOutcomeError):
                    self._unsettled.doubt(error.__cause__, runs)
                raise

        if self._unsettled.attempts:
            await self._settled(runs)
        abandoned = partial(self._unsettled.add, runs=runs) if writes else None
        return await shielded(run(), self._tasks, abandoned)

    async def drain(self) -> list[Doubt]:
        """Wait for the end of all calls, and return the attempts that may still take effect."""
        self._closed = True
        await self._group_commit.drain()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        return await self._unsettled.close(_SETTLE_S)

    # -- writes -------------------------------------------------------------------------

    async def _commit(
        self, write: Write, rows: list[Row], pending: list[PendingWrite]
    ) -> list[Any]:
        """Write rows in one transaction; return a result, or an error, for each."""
        blocked = self._unsettled.attempts and self._unsettled.blocked({row[0] for row in rows})
        if blocked:
            free = [row for row in rows if row[0] not in blocked]
            results = iter(await self._commit(write, free, pending) if free else ())
            return [blocked.get(row[0]) or next(results) for row in rows]

        async def attempt() -> list[Any]:
            try:
                return await self._execute(write, rows)
            except Exception as error:
                # The run of a single step may be deleted while its statement runs.
                kind = self.dialect.classify_error(error).kind
                if len(rows) == 1 and kind is ErrorKind.RUN_MISSING:
                    return [False]
                raise

        try:
            if self._telemetry is None:
                return await self._with_retries(attempt)
            with self._telemetry.commit(pending):
                return await self._with_retries(attempt)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, UnknownOutcomeError):
                over = self._unsettled.doubt(error.__cause__, {row[0] for row in rows})
                return await self._read_back(write, rows, over, error)
            raise

    async def _read_back(
        self, write: Write, rows: list[Row], over: asyncio.Future[None], error: Exception
    ) -> list[Any]:
        """Return True for each row that is as it was to be written, else the error.

        A row that equals what was to be written is success even if another process wrote it: no
        observer can distinguish the two. Any other row may have been written and replaced since.
        """
        results: list[Any] = [error] * len(rows)
        await asyncio.wait([over], timeout=_SETTLE_S)
        if over.done() and write.applied is not None:
            read = write.applied()
            with contextlib.suppress(WorkflowStoreError):
                deadline = self.loop.time() + _SETTLE_S
                for number, row in enumerate(rows):
                    if self.loop.time() > deadline:
                        break
                    if await self._with_retries(partial(self._fetch, read, row)):
                        results[number] = True
        return results

    async def _execute(self, write: Write, rows: Sequence[Row]) -> list[Any]:
        """Write rows of different keys in one transaction, and commit.

        Returns:
            For each row, a true value if it was written: its run exists and its claim holds.
            The returned row, if the statement returns rows.
        """
        if write.batched is None or (write.single and len(rows) == 1):
            calls = [
                DriverCall(statement.sql, [*map(statement.arguments, rows)], write.returns)
                for statement in write.single
            ]
            return await self._on_connection(
                lambda driver, session: self.dialect.execute(driver, calls, self._options, session)
            )
        columns = list(zip(*rows, strict=True))
        results = await self._fetch((write.batched,), columns, writes=True)
        width = len(write.match_key(rows[0]))
        written = {tuple(result[:width]): result for result in results}
        return [written.get(write.match_key(row)) for row in rows]

    async def _with_retries(self, attempt: Callable[[], Awaitable[_T]], purpose: str = "") -> _T:
        try:
            return await self._retry.run(attempt)
        except WorkflowStoreError:
            raise
        except Exception as error:
            if self.dialect.classify_error(error).kind is ErrorKind.SCHEMA:
                await migrate.check(self.engine, schema=self._schema, options=self._options)
                raise migrate.altered_tables_error(self._url) from error
            raise to_store_error(error, self._url, purpose) from error

    async def _fetch(self, read: Read, values: Row, *, writes: bool = False) -> list[Row]:
        """Return the rows of the statements, all of one snapshot."""
        calls = [(statement.sql, statement.arguments(values)) for statement in read]
        return await self._on_connection(
            lambda driver, session: self.dialect.fetch(
                driver, calls, self._options, session, writes=writes
            )
        )

    async def _on_connection(self, call: Callable[[Any, Any], Awaitable[_T]]) -> _T:
        """Call with a pooled connection and its session; the pool keeps no closed connection."""

        def run() -> _T:
            while True:
                connection = self._checkout()
                driver = connection.driver_connection
                try:
                    session = self.dialect.known_session(connection) or await_only(
                        self.dialect.open_session(connection, self._options)
                    )
                    if session is not None:
                        return await_only(call(driver, session))
                finally:
                    if self.dialect.is_closed(driver):
                        connection.invalidate()
                    self._checkin(connection, driver)

        # One greenlet: each method of AsyncEngine starts its own.
        return await greenlet_spawn(run)

    def _checkout(self) -> PoolProxiedConnection:
        if self._owns_engine:  # whose pool and connections have limits of their own
            return self.engine.sync_engine.raw_connection()
        with self.dialect.checkout_limit(self.engine, self._options):
            return self.engine.sync_engine.raw_connection()

    def _checkin(self, connection: PoolProxiedConnection, driver: Any) -> None:
        if self._owns_engine:
            connection.close()
            return
        with self.dialect.checkin_limit(self.engine, driver):
            connection.close()

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        """Connect through SQLAlchemy; yield the connection and its session."""
        limit = None if self._owns_engine else self.dialect.connection
        while True:
            connecting = limit(self.engine, self._options) if limit else self.engine.connect()
            async with connecting as connection:
                raw = await connection.get_raw_connection()
                session = self.dialect.known_session(raw) or await self.dialect.open_session(
                    raw, self._options
                )
                if session is not None:
                    yield connection, session
                    return
                await connection.invalidate()

    async def _settled(self, runs: Collection[str] | None, *, doubtful: bool = False) -> None:
        """Wait until no earlier attempt may change the runs; None for any run."""
        within_s = self.dialect.attempt_limit_s(self._options)
        await self._unsettled.wait(runs, within_s, doubtful=doubtful)
        if self._closed:
            raise StoreClosedError("The store was closed while the call was waiting.")

    async def _end_session(self, session: Any) -> bool:
        return await self._on_connection(
            lambda driver, _: self.dialect.end_session(driver, session, self._options)
        )


async def shielded(
    work: Awaitable[_T],
    tasks: set[asyncio.Future[Any]],
    abandoned: Callable[[asyncio.Future[_T]], None] | None = None,
) -> _T:
    """Run to completion even if the caller is cancelled. `tasks` keeps the reference.

    Cancelling a statement would cost its connection. `abandoned` is called with the task if it
    continues without its caller.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)

    def ended(task: asyncio.Future[_T]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, as a cancelled caller does not

    task.add_done_callback(ended)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if abandoned is not None and not task.done():
            abandoned(task)
        raise
