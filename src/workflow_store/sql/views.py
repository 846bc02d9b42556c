"""Views of a database: behind a claim, and inside a transaction of the caller."""

from __future__ import annotations

from typing import Any, ParamSpec

from sqlalchemy.ext.asyncio import AsyncConnection

from ..store import RunClaim
from .database import Database
from .dialects import ErrorKind, StoreDialect
from .errors import translate_errors
from .executor import Executor, RowMaker
from .group_commit import Row
from .queries.claims import raise_claim_lost
from .queries.compiler import Read, Statement, Write
from .urls import DatabaseUrl

__all__ = ["BoundDatabase", "FencedDatabase"]

_P = ParamSpec("_P")


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
