"""The shortest way from a store to its driver: through SQLAlchemy's pool, past its execution.

A statement through `AsyncEngine.begin()` costs SQLite five thread hops and PostgreSQL three
round trips. What a store does most is one statement, or one batch, that is a transaction by
itself; here it takes one hop or one round trip. Connections still come from the engine, the
store's own or a caller's, and go back to its pool.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from .dialects import Call, EngineOptions, StoreDialect
from .queries.compiler import Read, Write

__all__ = ["Driver"]

_T = TypeVar("_T")


class Driver:
    """Runs compiled statements on the connections of an engine."""

    def __init__(self, engine: AsyncEngine, dialect: StoreDialect, options: EngineOptions) -> None:
        self._engine = engine
        self._dialect = dialect
        self._options = options

    async def read(self, read: Read, values: Sequence[Any]) -> list[Any]:
        """Give the rows of statements, one after the other, all of one moment."""
        calls = [(statement.sql, statement.arguments(values)) for statement in read]
        return await self._on_connection(
            lambda connection: self._dialect.fetch(connection, calls, self._options)
        )

    async def write(self, write: Write, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Write rows of different keys in one transaction.

        Returns:
            For each row, once all of them are committed, what is true where it found its
            place: its run is there, and its fence holds. The row that the statement gives,
            where it gives any. A row that found no place changed nothing.
        """
        if write.many is None or (write.one and len(rows) == 1):
            calls = [Call(one.sql, [*map(one.arguments, rows)], write.returns) for one in write.one]
            return await self._on_connection(
                lambda connection: self._dialect.execute(connection, calls, self._options)
            )
        answers = await self.read((write.many,), list(zip(*rows, strict=True)))
        width = len(write.answer(rows[0]))
        found = {tuple(answer[:width]): answer for answer in answers}
        return [found.get(write.answer(row)) for row in rows]

    async def _on_connection(self, call: Callable[[Any], Awaitable[_T]]) -> _T:
        """Call with a borrowed connection; one that has ended is not used, nor given back."""

        def run() -> _T:
            borrowed = self._engine.sync_engine.raw_connection()
            try:
                while self._dialect.is_closed(borrowed.driver_connection):
                    borrowed.invalidate()
                    borrowed.close()
                    borrowed = self._engine.sync_engine.raw_connection()
                return await_only(call(borrowed.driver_connection))
            finally:
                if self._dialect.is_closed(borrowed.driver_connection):
                    borrowed.invalidate()
                borrowed.close()

        # One greenlet for all three: AsyncEngine's own methods start one for each.
        return await greenlet_spawn(run)
