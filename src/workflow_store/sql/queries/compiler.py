"""Compiles SQLAlchemy statements to driver SQL, once per open store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Column, Dialect

from ..dialects import StoreDialect
from ..group_commit import Row

__all__ = ["Compiler", "Read", "Statement", "Write", "picker"]


@dataclass(frozen=True, eq=False)
class Statement:
    """A compiled statement.

    Attributes:
        sql: the text, in the driver's parameter style.
        arguments: returns the driver's parameters for values in the order of the columns.
    """

    sql: str
    arguments: Callable[[Row], Row]


Read: TypeAlias = tuple[Statement, ...]
"""Statements whose rows, concatenated, are the result."""


@dataclass(frozen=True, eq=False)
class Write:
    """The statements that write rows, one or many at once.

    Attributes:
        single: write one row, in one transaction; empty if only `batched` does. The first
            statement changes no row if the run does not exist or the claim was lost.
        batched: writes rows of different keys, from one array per column. It takes its locks
            in the order of the keys, runs before claims before steps, so that two of them
            never deadlock. None if `single`, once per row, costs no more.
        key: returns the key of a row.
        match_key: returns the first columns of `batched`'s result for a row that was written.
        payload: returns the values of a row that may be large.
        returns: whether the result goes on with columns for the caller.
        succeeds_once: whether a repetition writes nothing, so that it must not succeed.
        applied: returns the read that finds a row if it is as the write leaves it, and the
            claim holds. None if the rows cannot show it.
    """

    single: tuple[Statement, ...]
    batched: Statement | None
    key: Callable[[Row], Any]
    match_key: Callable[[Row], Any]
    payload: Callable[[Row], Row]
    returns: bool = False
    succeeds_once: bool = False
    applied: Callable[[], Read] | None = None


class Compiler:
    """Compiles statements for a database, a driver and a schema."""

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        self.dialect = dialect
        self._driver = driver
        self._schema = schema

    def read(self, columns: Sequence[Column[Any]], *selects: Any) -> Read:
        """Compile selects whose parameters have the names of the columns."""
        return tuple(self.compile(columns, select) for select in selects)

    def compile(self, columns: Sequence[Column[Any]], statement: Any) -> Statement:
        """Compile a statement whose parameters have the names of the columns."""
        in_schema: dict[str, Any] = {}
        if self._schema is not None:
            in_schema["schema_translate_map"] = {None: self._schema}
            in_schema["render_schema_translate"] = True
        compiled = statement.compile(dialect=self._driver, **in_schema)
        names = [column.name for column in columns]
        return Statement(str(compiled), picker([names.index(n) for n in compiled.positiontup]))


def picker(indices: Sequence[int]) -> Callable[[Row], tuple[Any, ...]]:
    """Return a function that returns the values at the indices, always as a tuple."""
    if not indices:
        return lambda _: ()
    if len(indices) == 1:
        index = indices[0]
        return lambda row: (row[index],)
    return itemgetter(*indices)
