"""Views of an open database: one whose writes need a claim, one inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from ..store import RunClaim
from . import rows
from .database import Database, Executor
from .dialects import ErrorKind
from .errors import translate_errors
from .queries import claims
from .queries.compiler import Read, Statement, Write

__all__ = ["BoundDatabase", "FencedDatabase"]

Row = Sequence[Any]


class FencedDatabase(Executor):
    """A database whose writes need a claim."""

    def __init__(self, database: Database, claim: RunClaim) -> None:
        self.dialect = database.dialect
        self.statements = database.statements
        self.writes = database.statements.fenced
        self._database = database
        self._claim = claim

    async def read(self, read: Read, key: Sequence[Any], *, what: str = "run") -> list[Any]:
        return await self._database.read(read, key, what=what)

    async def write(self, write: Write, make_row: Callable[..., Row], *given: Any) -> Any:
        """Do it where the claim holds.

        Raises:
            ClaimLostError: the claim does not hold; nothing was written.
        """
        claim = self._claim
        found = await self._database.write(write, rows.fenced_row, make_row, claim, *given)
        if not found:
            # A token that was lost is never valid again: what holds now held before, and it
            # was the run that was not there.
            key = (claim.run_task_id, claim.token)
            if not await self.read(self.statements.get_claim, key):
                raise claims.lost(claim)
        return found


class BoundDatabase(Executor):
    """The connection and the transaction of a caller."""

    def __init__(self, database: Database, connection: AsyncConnection) -> None:
        self.dialect = database.dialect
        self.statements = database.statements
        self.writes = database.statements.writes
        self._connection = connection

    async def read(self, read: Read, key: Sequence[Any], *, what: str = "run") -> list[Any]:
        found: list[Any] = []
        with translate_errors(self.dialect, self._connection.engine.url):
            for statement in read:
                found += (await self._execute(statement, key)).all()
        return found

    async def write(self, write: Write, make_row: Callable[..., Row], *given: Any) -> bool:
        row = make_row(self.dialect, *given)
        with translate_errors(self.dialect, self._connection.engine.url):
            try:
                async with self.dialect.savepoint(self._connection):
                    if write.many is not None and not write.one:
                        arrays = [[value] for value in row]
                        return bool((await self._execute(write.many, arrays)).all())
                    counts = [(await self._execute(one, row)).rowcount for one in write.one]
            except Exception as error:
                # The run may go while the statement runs.
                if self.dialect.classify_error(error).kind is ErrorKind.RUN_MISSING:
                    return False
                raise
        return bool(counts[0] > 0)

    async def _execute(self, statement: Statement, values: Sequence[Any]) -> Any:
        return await self._connection.exec_driver_sql(
            statement.sql, tuple(statement.arguments(values))
        )
