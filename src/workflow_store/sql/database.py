"""An open database: retries, errors in the words of this package, and group commit."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import StoreClosedError, WorkflowStoreError
from . import migrate
from .dialects import EngineOptions, ErrorKind, StoreDialect
from .driver import Driver
from .errors import to_store_error
from .group_commit import GroupCommit
from .queries.compiler import Read, Write
from .queries.statements import Statements, Writes
from .retry import Retries
from .urls import masked

if TYPE_CHECKING:
    from .telemetry.spans import Call, Telemetry

__all__ = ["Database", "Executor", "shielded"]

_T = TypeVar("_T")
Row = Sequence[Any]


class Executor(ABC):
    """Reads and writes of the hot path.

    Attributes:
        dialect: the database's dialect.
        statements: the reads.
        writes: the writes.
    """

    dialect: StoreDialect
    statements: Statements
    writes: Writes

    @abstractmethod
    async def read(self, read: Read, key: Sequence[Any], *, what: str = "run") -> list[Any]:
        """Give the rows of a read, all of one moment.

        Args:
            read: the statements.
            key: their parameters, the first of which an error names.
            what: what that is.
        """

    @abstractmethod
    async def write(self, write: Write, make_row: Callable[..., Row], *given: Any) -> Any:
        """Write the row that is made of what is given, and tell whether it found its place."""


class Database(Executor):
    """Runs the statements of a store on an engine, which is the caller's to dispose."""

    def __init__(
        self,
        engine: AsyncEngine,
        dialect: StoreDialect,
        options: EngineOptions,
        schema: str | None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.engine = engine
        self.dialect = dialect
        self.statements = Statements(dialect, engine.dialect, schema)
        self.writes = self.statements.writes
        self.telemetry = telemetry
        self._schema = schema
        self._options = options
        self._driver = Driver(engine, dialect, options)
        self._retries = Retries(dialect, engine.url, telemetry)
        self._writer: GroupCommit[Write] = GroupCommit(
            self._commit, fails_alone=lambda error: type(error) is WorkflowStoreError
        )
        self._reading: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def read(self, read: Read, key: Sequence[Any], *, what: str = "run") -> list[Any]:
        return await shielded(
            self._attempts(lambda: self._driver.read(read, key), f" for {what} {key[0]!r}"),
            self._reading,
        )

    async def write(self, write: Write, make_row: Callable[..., Row], *given: Any) -> Any:
        """Write a row; once it is committed, give what is true where it found its place.

        Args:
            write: how it is written.
            make_row: makes it of the dialect and what is given. It is called when there is
                room for the row, so that few of them wait in memory. A closure instead of
                arguments would be a third of what a waiting call weighs.
            given: what it is made of.

        Raises:
            StoreClosedError: the database was closed before there was room.
        """
        note = None if self.telemetry is None else self.telemetry.call()
        # Not `async with`, which is three calls more.
        await self._writer.room.acquire()
        try:
            if self._closed:
                raise StoreClosedError("The store was closed while the call waited.")
            row = make_row(self.dialect, *given)
            return await self._writer.write(write, write.key(row), row, _size(row), note)
        finally:
            self._writer.room.release()

    async def transaction(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        what: str,
        *,
        writes: bool = True,
    ) -> _T:
        """Do work in one transaction; give its result once it is committed.

        Args:
            work: gets the connection, with the tables in their schema. Where the database
                asks for another attempt, it is called again.
            what: names what it is for in an error.
            writes: whether it writes.
        """

        async def attempt() -> _T:
            async with (
                self.engine.connect() as connection,
                self.dialect.transaction(connection, self._options, writes=writes),
            ):
                if self._schema is not None:
                    await connection.execution_options(schema_translate_map={None: self._schema})
                return await work(connection)

        return await shielded(self._attempts(attempt, f" for {what}"), self._reading)

    async def drain(self) -> None:
        """Take no further write, and wait until all that was begun has ended."""
        self._closed = True
        await self._writer.drain()
        while self._reading:
            await asyncio.wait(set(self._reading))

    async def _commit(self, write: Write, rows: list[Row], calls: list[Call]) -> list[Any]:
        async def attempt() -> list[Any]:
            try:
                return await self._driver.write(write, rows)
            except Exception as error:
                # A single step's run may go while its statement runs.
                if (
                    len(rows) == 1
                    and self.dialect.classify_error(error).kind is ErrorKind.RUN_MISSING
                ):
                    return [False]
                raise

        if self.telemetry is None:
            return await self._attempts(attempt)
        with self.telemetry.commit(calls):
            return await self._attempts(attempt)

    async def _attempts(self, attempt: Callable[[], Awaitable[_T]], purpose: str = "") -> _T:
        try:
            return await self._retries.run(attempt)
        except WorkflowStoreError:
            raise
        except Exception as error:
            if self.dialect.classify_error(error).kind is ErrorKind.SCHEMA:
                await migrate.check_with(self._options, self.engine, schema=self._schema)
                raise migrate.altered_tables_error(self.engine) from error
            where = masked(self.engine.url) + purpose
            raise to_store_error(error, self.dialect, where) from error


def _size(row: Row) -> int:
    """Give the characters of a row, which is about what it weighs."""
    return sum([len(value) for value in row if type(value) is str])


async def shielded(work: Awaitable[_T], tasks: set[asyncio.Future[Any]]) -> _T:
    """Await work that a cancellation of the caller does not stop; `tasks` holds it meanwhile.

    Cancelling a statement half-way would cost its connection. A task of its own also begins
    with an empty stack, however deep the caller's own is.
    """
    task = asyncio.ensure_future(work)
    tasks.add(task)

    def ended(task: asyncio.Future[_T]) -> None:
        tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a cancelled caller no longer asks for it

    task.add_done_callback(ended)
    return await asyncio.shield(task)
