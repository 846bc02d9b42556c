"""Rows that are written by one statement, from one array per column (PostgreSQL).

The locks of all statements are taken in one order, so that no two of them ever wait for each
other: runs by their ids, then claims by their tokens, then steps by their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    FromClause,
    Insert,
    Select,
    Table,
    Update,
    UpdateBase,
    cast,
    func,
    literal_column,
    select,
    update,
)

from ..columns import CLAIMS, CONTEXT, RUNS
from ..dialects import JsonText, StoreDialect

__all__ = ["KEY_SHARE", "NO_KEY_UPDATE", "UPDATE", "Batch", "Lock", "named", "upsert"]


class Lock(TypedDict, total=False):
    """The strength of a lock, as `with_for_update` takes it."""

    read: bool
    key_share: bool


KEY_SHARE = Lock(read=True, key_share=True)
NO_KEY_UPDATE = Lock(key_share=True)
UPDATE = Lock()


class Batch:
    """Rows that are written by one statement, and the locks that it takes before.

    Attributes:
        given: the rows.
        fence: the conditions under which the claim of a row holds.
        found: the same, and those under which its run is there.
    """

    def __init__(
        self,
        dialect: StoreDialect,
        given: FromClause,
        keys: Any,
        lock: Lock | None,
        *,
        fenced: bool,
    ) -> None:
        self._dialect = dialect
        self._fenced = fenced
        self._keys: FromClause = keys  # the same rows, without what is large
        self.given = given
        self.fence: list[ColumnElement[bool]] = []
        self.found: list[ColumnElement[bool]] = []
        if lock is not None:
            locked = (
                select(RUNS.c.run_task_id)
                .where(RUNS.c.run_task_id.in_(select(keys.c.run_task_id)))
                .order_by(RUNS.c.run_task_id)
                .with_for_update(**lock)
                .cte("locked")
            )
            self._locked = locked
            if fenced:
                self._held = self._locked_claims(locked)
            self.fence = self.holds(given)
            self.found = [self.has_run(given), *self.fence]

    def has_run(self, rows: FromClause) -> ColumnElement[bool]:
        return rows.c.run_task_id == self._locked.c.run_task_id

    def holds(self, rows: FromClause) -> list[ColumnElement[bool]]:
        if not self._fenced:
            return []
        return [
            rows.c.fence_token == self._held.c.token,
            rows.c.fence_run == self._held.c.run_task_id,
        ]

    def _locked_claims(self, locked: CTE) -> CTE:
        """Lock the claims that hold, after the runs: a share lock, which no renewal minds."""
        runs = select(func.count()).select_from(locked).scalar_subquery()
        return (
            select(CLAIMS.c.run_task_id, CLAIMS.c.token)
            .where(CLAIMS.c.token.in_(select(self._keys.c.fence_token)))
            .where(runs >= literal_column("0"))  # always so, but the runs must be locked to tell
            .order_by(CLAIMS.c.token)
            .with_for_update(**KEY_SHARE)
            .cte("fence")
        )

    def answer(self, written: Sequence[UpdateBase], *, needs_run: bool) -> Select[Any]:
        """Give the statement that writes, and answers with the rows that found their place."""
        keys = self._keys
        where = [*([self.has_run(keys)] if needs_run else []), *self.holds(keys)]
        answer = select(*keys.c).where(*where)
        for number, statement in enumerate(written):
            answer = answer.add_cte(statement.cte(f"written_{number}"))
        return answer

    def upsert(
        self,
        table: Table,
        columns: Sequence[Column[Any]],
        key: Sequence[Column[Any]],
        where: Sequence[ColumnElement[bool]],
    ) -> Insert:
        in_order = (self.given.c[column.name].collate("C") for column in key)
        rows = select(*self._values(self.given, columns)).where(*where).order_by(*in_order)
        return upsert(self._dialect, table, columns, rows)

    def update_context(self, source: FromClause, where: Sequence[ColumnElement[bool]]) -> Update:
        values = named(CONTEXT[1:], self._values(source, CONTEXT[1:]))
        same_run = RUNS.c.run_task_id == source.c.run_task_id
        return update(RUNS).where(same_run, *where).values(values)

    def last_of_each_run(self) -> FromClause:
        """Give the last commit of each run, in the order in which the steps are inserted."""
        given = self.given
        age = func.row_number().over(
            partition_by=given.c.run_task_id, order_by=given.c.step_id.collate("C").desc()
        )
        ranked = (
            select(*(given.c[column.name] for column in CONTEXT), age.label("age"))
            .where(*self.found)
            .cte("ranked")
        )
        return select(ranked).where(ranked.c.age == literal_column("1")).cte("last")

    @staticmethod
    def _values(source: FromClause, columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
        return [
            cast(source.c[column.name], column.type)
            if isinstance(column.type, JsonText)
            else source.c[column.name]
            for column in columns
        ]


def upsert(
    dialect: StoreDialect, table: Table, columns: Sequence[Column[Any]], rows: Select[Any]
) -> Insert:
    insert = dialect.insert(table).from_select([c.name for c in columns], rows)
    key = [column for column in columns if column.name in {"run_task_id", "step_id"}]
    return insert.on_conflict_do_update(
        index_elements=key,
        set_={c.name: insert.excluded[c.name] for c in columns if c not in set(key)},
    )


def named(
    columns: Iterable[Column[Any]], values: Iterable[ColumnElement[Any]]
) -> dict[str, ColumnElement[Any]]:
    return {column.name: value for column, value in zip(columns, values, strict=True)}
