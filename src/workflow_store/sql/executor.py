"""The interface through which the methods of a store read and write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeAlias

from .dialects import StoreDialect
from .group_commit import Row
from .queries.compiler import Read, Write
from .queries.statements import Statements, Writes

__all__ = ["Executor", "RowMaker"]

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
