"""The statements of a store: written once for both databases, compiled once for a driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Dialect,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    UpdateBase,
    bindparam,
    cast,
    delete,
    exists,
    literal_column,
    null,
    select,
    true,
    union_all,
    update,
)

from .dialects import JsonText, StoreDialect
from .models import Base

__all__ = ["Read", "Statement", "Statements", "Write"]

_RUNS = Base.metadata.tables["runs"]
_STEPS = Base.metadata.tables["steps"]

# The columns of each write and of each read, in the order of the values in a row.
RUN = list(_RUNS.c)
CONTEXT = [_RUNS.c.run_task_id, _RUNS.c.context, _RUNS.c.updated_at]
STEP = [column for column in _STEPS.c if column is not _STEPS.c.seq]
STEP_READ = [
    *(_STEPS.c[name] for name in ("step_id", "status", "result", "error", "wait_task_id")),
    *(_STEPS.c[name] for name in ("started_at", "completed_at")),  # times come last, as in RUN
]
KEY = [_RUNS.c.run_task_id]
STEP_KEY = [_STEPS.c.run_task_id, _STEPS.c.step_id]


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
    """How rows are written, one or many at once; the first value of a row is its run's id.

    Attributes:
        one: what writes one row, in one transaction. The first statement changes no row
            where the run is not there.
        key_length: how many values of a row, from the first one on, tell it from others.
        many: writes rows of different keys, from one array per column, and answers with the
            ids of the runs that are there. It takes its locks in the order of the keys, and
            those of runs before those of steps, so that no two of them ever wait for each
            other. None where many times `one` in a transaction does as well.
    """

    one: tuple[Statement, ...]
    key_length: int
    many: Statement | None


class Statements:
    """Every statement that a store needs, for one database and one schema.

    Args:
        dialect: the database's dialect.
        driver: SQLAlchemy's own dialect, which knows the driver's parameters.
        schema: the schema of the tables, None for the connection's own.
    """

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        self._dialect = dialect
        self._driver = driver
        self._schema = schema
        this_run = _RUNS.c.run_task_id == bindparam("run_task_id")
        of_this_run = _STEPS.c.run_task_id == bindparam("run_task_id")
        this_step = _STEPS.c.step_id == bindparam("step_id")

        self.get_run = self._read(KEY, select(*RUN).where(this_run))
        self.get_step = self._read(STEP_KEY, select(*STEP_READ).where(of_this_run, this_step))
        self.list_steps = self._read(
            KEY, select(*STEP_READ).where(of_this_run).order_by(_STEPS.c.seq)
        )
        # The run, which has 0 for its `seq`, and its steps.
        self.load_run = self._read(
            KEY,
            select(*_of_snapshot(RUN, literal_column("0"))).where(this_run),
            select(*_of_snapshot(STEP_READ, _STEPS.c.seq)).where(of_this_run),
        )

        self.create_run = self._write(
            RUN,
            self._upsert(_RUNS, RUN, select(*_parameters(RUN)).where(true())),
            many=lambda given: self._upsert(
                _RUNS, RUN, select(*_values(given, RUN)).order_by(*_key(given, KEY))
            ),
        )
        self.update_context = self._write(
            CONTEXT,
            update(_RUNS).where(this_run).values(_named(CONTEXT[1:], _parameters(CONTEXT[1:]))),
            many=lambda given: (
                update(_RUNS)
                .where(_RUNS.c.run_task_id == self._locked(key_share=True).c.run_task_id)
                .where(_RUNS.c.run_task_id == given.c.run_task_id)
                .values(_named(CONTEXT[1:], _values(given, CONTEXT[1:])))
            ),
        )
        # The steps go by the cascade, and by the second statement where a connection may not
        # enforce foreign keys.
        self.delete_run = self._write(
            KEY,
            delete(_RUNS).where(this_run),
            *([] if dialect.enforces_foreign_keys else [delete(_STEPS).where(of_this_run)]),
            many=lambda _: delete(_RUNS).where(_RUNS.c.run_task_id == self._locked().c.run_task_id),
        )
        # Inserts nothing where there is no run, enforced foreign keys or not. A step that is
        # there already keeps its `seq`, which is its place. The share lock keeps the run from
        # being deleted in between, which would fail the other rows with this one.
        self.upsert_step = self._write(
            STEP,
            self._upsert(_STEPS, STEP, select(*_parameters(STEP)).where(exists().where(this_run))),
            many=lambda given: self._upsert(
                _STEPS,
                STEP,
                select(*_values(given, STEP))
                .where(given.c.run_task_id == self._locked(read=True, key_share=True).c.run_task_id)
                .order_by(*_key(given, STEP_KEY)),
            ),
        )

    def _read(self, columns: Sequence[Column[Any]], *selects: Select[Any]) -> Read:
        if len(selects) == 1:
            return (self._compile(columns, selects[0]),)
        if self._dialect.reads_in_one_statement:
            return (self._compile(columns, union_all(*selects).order_by("seq")),)
        return tuple(self._compile(columns, each.order_by("seq")) for each in selects)

    def _write(
        self,
        columns: Sequence[Column[Any]],
        *one: UpdateBase,
        many: Callable[[FromClause], Any],
    ) -> Write:
        given = self._dialect.given_rows(columns)
        return Write(
            tuple(self._compile(columns, statement) for statement in one),
            len(STEP_KEY if columns is STEP else KEY),
            None
            if given is None
            else self._compile(columns, (m := many(given)).returning(m.table.c.run_task_id)),
        )

    def _upsert(self, table: Table, columns: Sequence[Column[Any]], rows: Select[Any]) -> Insert:
        insert = self._dialect.insert(table).from_select([c.name for c in columns], rows)
        key = [column for column in columns if column.name in {"run_task_id", "step_id"}]
        return insert.on_conflict_do_update(
            index_elements=key,
            set_={c.name: insert.excluded[c.name] for c in columns if c not in set(key)},
        )

    def _locked(self, **strength: Any) -> CTE:
        """Give the runs of the rows that are there, locked in the order of their ids."""
        given: Any = self._dialect.given_rows(KEY)
        return (
            select(_RUNS.c.run_task_id)
            .where(_RUNS.c.run_task_id.in_(select(given.c.run_task_id)))
            .order_by(_RUNS.c.run_task_id)
            .with_for_update(**strength)
            .cte("locked")
        )

    def _compile(self, columns: Sequence[Column[Any]], statement: Any) -> Statement:
        in_schema: dict[str, Any] = {}
        if self._schema is not None:
            in_schema["schema_translate_map"] = {None: self._schema}
            in_schema["render_schema_translate"] = True
        compiled = statement.compile(dialect=self._driver, **in_schema)
        names = [column.name for column in columns]
        places = [names.index(name) for name in compiled.positiontup]
        if len(places) == 1:
            return Statement(str(compiled), lambda values: (values[places[0]],))
        return Statement(str(compiled), itemgetter(*places))


def _of_snapshot(
    columns: Sequence[Column[Any]], seq: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """Give columns as wide as a run, with `seq` before the two times."""
    padding = [cast(null(), Text)] * (len(RUN) - len(columns))
    return [*columns[:-2], *padding, seq.label("seq"), *columns[-2:]]


def _parameters(columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [bindparam(column.name, type_=column.type) for column in columns]


def _values(given: FromClause, columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [
        cast(given.c[column.name], column.type)
        if isinstance(column.type, JsonText)
        else given.c[column.name]
        for column in columns
    ]


def _key(given: FromClause, columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [given.c[column.name].collate("C") for column in columns]


def _named(
    columns: Iterable[Column[Any]], values: Iterable[ColumnElement[Any]]
) -> dict[str, ColumnElement[Any]]:
    return {column.name: value for column, value in zip(columns, values, strict=True)}
