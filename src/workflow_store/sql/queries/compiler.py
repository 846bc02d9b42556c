"""From SQLAlchemy's statements to the driver's own, once for each open store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Column, Dialect, Select, union_all

from ..dialects import StoreDialect

__all__ = ["Compiler", "Read", "Statement", "Write", "places"]


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement in the driver's own form.

    Attributes:
        sql: its text.
        arguments: gives the driver's parameters for values in the order of the columns.
    """

    sql: str
    arguments: Callable[[Sequence[Any]], Sequence[Any]]


Read: TypeAlias = tuple[Statement, ...]
"""Statements whose rows, one after the other, are the answer."""


@dataclass(frozen=True, eq=False)
class Write:
    """How rows are written, one or many at once.

    Attributes:
        one: what writes one row, in one transaction; empty where only `many` does. The first
            statement changes no row where the run is not there, or the fence does not hold.
        many: writes rows of different keys, from one array per column. It takes its locks in
            the order of the keys, those of runs before those of claims before those of steps,
            so that no two of them ever wait for each other. None where many times `one` in a
            transaction does as well.
        key: gives what tells a row from others.
        answer: gives what `many` answers with for a row that found its place.
        returns: whether the answer goes on with values that the caller wants.
    """

    one: tuple[Statement, ...]
    many: Statement | None
    key: Callable[[Sequence[Any]], Any]
    answer: Callable[[Sequence[Any]], Any]
    returns: bool = False


class Compiler:
    """Turns SQLAlchemy's statements into the driver's own."""

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        self.dialect = dialect
        self._driver = driver
        self._schema = schema

    def read(self, columns: Sequence[Column[Any]], *selects: Select[Any]) -> Read:
        if len(selects) == 1:
            return (self.compile(columns, selects[0]),)
        if self.dialect.reads_in_one_statement:
            return (self.compile(columns, union_all(*selects).order_by("seq")),)
        return tuple(self.compile(columns, each.order_by("seq")) for each in selects)

    def compile(self, columns: Sequence[Column[Any]], statement: Any) -> Statement:
        in_schema: dict[str, Any] = {}
        if self._schema is not None:
            in_schema["schema_translate_map"] = {None: self._schema}
            in_schema["render_schema_translate"] = True
        compiled = statement.compile(dialect=self._driver, **in_schema)
        names = [column.name for column in columns]
        return Statement(str(compiled), places([names.index(n) for n in compiled.positiontup]))


def places(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return itemgetter(*places)
