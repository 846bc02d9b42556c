"""Runs statements: on an engine, behind a claim, or in a caller's transaction."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from ..errors import StoreClosedError, WorkflowStoreError
from ..store import RunClaim
from . import migrate
from .dialects import DriverCall, EngineOptions, ErrorKind, StoreDialect
from .errors import to_store_error, translate_errors
from .group_commit import GroupCommit, Row
from .queries.claims import raise_claim_lost
from .queries.compiler import Read, Statement, Write
from .queries.statements import Statements, Writes
from .retry import RetryPolicy
from .urls import DatabaseUrl

if TYPE_CHECKING:
    from .telemetry.spans import PendingWrite, Telemetry

__all__ = ["BoundDatabase", "Database", "Executor", "FencedDatabase", "shielded"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

RowMaker: TypeAlias = Callable[Concatenate[StoreDialect, _P], Row]
"""Builds the row of a write from the dialect and the arguments of the call."""


class Executor(ABC):
    """Runs the statements of the hot path.

    Attributes:
        dialect: the dialect of the database.
        statements: the reads.
        writes: the writes.
    """

    dialect: StoreDialect
    statements: Statements
    writes: Writes

    @abstractmethod
    async def read(self, read: Read, key: Row, *, subject: str = "run") -> list[Row]:
        """Return the rows of a read, all of one snapshot. Errors name `subject` and its key."""

    @abstractmethod
    async def write(
        self, write: Write, make_row: RowMaker[_P], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        """Write the row that `make_row` builds from the arguments.

        Returns:
            A false value if the row was not written: its run or claim does not exist. Else a
            true value; the returned row, if the statement returns rows.
        """


class Database(Executor):
    """An open database: group commit, retries, and errors of this package.

    Statements bypass SQLAlchemy's execution and use raw connections of the engine's pool: one
    thread hop on SQLite and one round trip on PostgreSQL, instead of five hops and three round
    trips through `AsyncEngine.begin()`. The engine is disposed by its owner.
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
        self._group_commit: GroupCommit[Write] = GroupCommit(
            self._commit, fails_alone=lambda error: type(error) is WorkflowStoreError
        )
        self._tasks: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def read(self, read: Read, key: Row, *, subject: str = "run") -> list[Row]:
        return await shielded(
            self._with_retries(lambda: self._fetch(read, key), f" for {subject} {key[0]!r}"),
            self._tasks,
        )

    async def write(
        self, write: Write, make_row: RowMaker[_P], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        note = None if self._telemetry is None else self._telemetry.pending_write()
        # `make_row` runs once there is room for the row, so that few rows wait in memory. A
        # closure instead of its arguments would be a third of the memory of a waiting call.
        # Not `async with`, which costs three more calls.
        await self._group_commit.room.acquire()
        try:
            if self._closed:
                raise StoreClosedError("The store was closed while the call was waiting.")
            row = make_row(self.dialect, *args, **kwargs)
            return await self._group_commit.write(write, write.key(row), row, _size(row), note)
        finally:
            self._group_commit.room.release()

    async def transaction(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        purpose: str,
        *,
        writes: bool = True,
    ) -> _T:
        """Run a function in one transaction and return its result after the commit.

        Args:
            work: receives the connection, with the tables in their schema. It is called again
                for each retry.
            purpose: named in an error.
            writes: whether it writes.
        """

        async def attempt() -> _T:
            async with (
                self.dialect.connection(self.engine, self._options) as connection,
                self.dialect.transaction(connection, self._options, writes=writes),
            ):
                if self._schema is not None:
                    await connection.execution_options(schema_translate_map={None: self._schema})
                return await work(connection)

        return await shielded(self._with_retries(attempt, f" for {purpose}"), self._tasks)

    async def drain(self) -> None:
        """Accept no further write, and wait until all calls have ended."""
        self._closed = True
        await self._group_commit.drain()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _commit(
        self, write: Write, rows: list[Row], pending: list[PendingWrite]
    ) -> list[Any]:
        async def attempt() -> list[Any]:
            try:
                return await self._execute(write, rows)
            except Exception as error:
                # The run of a single step may be deleted while its statement runs.
                kind = self.dialect.classify_error(error).kind
                if len(rows) == 1 and kind is ErrorKind.RUN_MISSING:
                    return [False]
                raise

        if self._telemetry is None:
            return await self._with_retries(attempt)
        with self._telemetry.commit(pending):
            return await self._with_retries(attempt)

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

    async def _fetch(self, read: Read, values: Row) -> list[Row]:
        """Return the rows of the statements, all of one snapshot."""
        calls = [(statement.sql, statement.arguments(values)) for statement in read]
        return await self._on_connection(
            lambda driver: self.dialect.fetch(driver, calls, self._options)
        )

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
                lambda driver: self.dialect.execute(driver, calls, self._options)
            )
        results = await self._fetch((write.batched,), list(zip(*rows, strict=True)))
        width = len(write.match_key(rows[0]))
        written = {tuple(result[:width]): result for result in results}
        return [written.get(write.match_key(row)) for row in rows]

    async def _on_connection(self, call: Callable[[Any], Awaitable[_T]]) -> _T:
        """Call with a connection of the pool, which receives no closed connection back."""

        def obtain() -> PoolProxiedConnection:
            with self.dialect.checkout_limit(self.engine, self._options):
                return self.engine.sync_engine.raw_connection()

        def run() -> _T:
            connection = obtain()
            try:
                while self.dialect.is_closed(connection.driver_connection):
                    connection.invalidate()
                    connection.close()
                    connection = obtain()
                return await_only(call(connection.driver_connection))
            finally:
                driver = connection.driver_connection
                if self.dialect.is_closed(driver):
                    connection.invalidate()
                with self.dialect.checkin_limit(self.engine, driver):
                    connection.close()

        # One greenlet for all three: each method of AsyncEngine starts its own.
        return await greenlet_spawn(run)


class FencedDatabase(Executor):
    """A database whose writes need a claim."""

    def __init__(self, database: Database, claim: RunClaim) -> None:
        self.dialect = database.dialect
        self.statements = database.statements
        self.writes = database.statements.fenced
        self._database = database
        self._claim = claim

    async def read(self, read: Read, key: Row, *, subject: str = "run") -> list[Row]:
        return await self._database.read(read, key, subject=subject)

    async def write(
        self, write: Write, make_row: RowMaker[_P], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        """Write a row if the claim holds.

        Raises:
            ClaimLostError: the claim was lost; nothing was written.
        """
        claim = self._claim
        written = await self._database.write(write, _fenced_row, claim, make_row, *args, **kwargs)
        if not written:
            # A lost token is never valid again: if the claim holds now, it held then, and the
            # run did not exist.
            key = (claim.run_task_id, claim.token)
            if not await self.read(self.statements.get_claim, key):
                raise_claim_lost(claim)
        return written


class BoundDatabase(Executor):
    """The connection and the transaction of a caller."""

    def __init__(self, database: Database, connection: AsyncConnection) -> None:
        self.dialect = database.dialect
        self.statements = database.statements
        self.writes = database.statements.writes
        self._connection = connection
        self._url = DatabaseUrl(database.dialect, connection.engine.url)

    async def read(self, read: Read, key: Row, *, subject: str = "run") -> list[Row]:
        rows: list[Row] = []
        with translate_errors(self._url):
            for statement in read:
                rows += (await self._run(statement, key)).all()
        return rows

    async def write(
        self, write: Write, make_row: RowMaker[_P], *args: _P.args, **kwargs: _P.kwargs
    ) -> bool:
        row = make_row(self.dialect, *args, **kwargs)
        with translate_errors(self._url):
            try:
                async with self.dialect.savepoint(self._connection):
                    if write.batched is not None and not write.single:
                        arrays = [[value] for value in row]
                        return bool((await self._run(write.batched, arrays)).all())
                    counts = [(await self._run(one, row)).rowcount for one in write.single]
            except Exception as error:
                # The run may be deleted while the statement runs.
                if self.dialect.classify_error(error).kind is ErrorKind.RUN_MISSING:
                    return False
                raise
        return bool(counts[0] > 0)

    async def _run(self, statement: Statement, values: Row) -> Any:
        return await self._connection.exec_driver_sql(
            statement.sql, tuple(statement.arguments(values))
        )


def _fenced_row(
    dialect: StoreDialect,
    claim: RunClaim,
    make_row: RowMaker[_P],
    /,
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> Row:
    return (*make_row(dialect, *args, **kwargs), claim.run_task_id, claim.token)


def _size(row: Row) -> int:
    """Return the characters of a row, which are about its bytes."""
    return sum([len(value) for value in row if type(value) is str])


async def shielded(work: Awaitable[_T], tasks: set[asyncio.Future[Any]]) -> _T:
    """Run to completion even if the caller is cancelled. `tasks` keeps the reference.

    Cancelling a statement would cost its connection.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)

    def ended(task: asyncio.Future[_T]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, as a cancelled caller does not

    task.add_done_callback(ended)
    return await asyncio.shield(task)
