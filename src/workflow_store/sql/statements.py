"""The statements of a store, written once for both databases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BindParameter, Column, Table, bindparam, delete, exists, select, update

from .dialects import StoreDialect
from .models import Base

__all__ = ["Statements"]

_KEYS = {"run_task_id", "step_id", "seq"}


class Statements:
    """Every statement that the methods of a store need; parameters are named as columns."""

    def __init__(self, dialect: StoreDialect) -> None:
        runs = Base.metadata.tables["runs"]
        steps = Base.metadata.tables["steps"]
        this_run = runs.c.run_task_id == bindparam("run_task_id")
        of_this_run = steps.c.run_task_id == bindparam("run_task_id")
        written = [column for column in steps.c if column is not steps.c.seq]
        read = [column for column in written if column is not steps.c.run_task_id]

        create = dialect.insert(runs).values(_parameters(runs.c))
        self.create_run = create.on_conflict_do_update(
            index_elements=[runs.c.run_task_id], set_=_replacing(runs, create.excluded)
        )
        # Not `run_task_id`: in an UPDATE, a parameter named as a column is one to be set.
        self.update_context = (
            update(runs)
            .where(runs.c.run_task_id == bindparam("of_run"))
            .values(_parameters([runs.c.context, runs.c.updated_at]))
        )
        # The run first, as a concurrent upsert locks it. Its steps go by the cascade, and by
        # the second statement where a caller's connection does not enforce foreign keys.
        self.delete_run = (delete(runs).where(this_run), delete(steps).where(of_this_run))
        self.get_run = select(runs).where(this_run)

        # Inserts nothing where there is no run, enforced foreign keys or not. What exists
        # already keeps its `seq`, which is its place.
        upsert = dialect.insert(steps).from_select(
            written, select(*_parameters(written).values()).where(exists().where(this_run))
        )
        self.upsert_step = upsert.on_conflict_do_update(
            index_elements=[steps.c.run_task_id, steps.c.step_id],
            set_=_replacing(steps, upsert.excluded),
        )
        self.get_step = select(*read).where(of_this_run, steps.c.step_id == bindparam("step_id"))
        self.list_steps = select(*read).where(of_this_run).order_by(steps.c.seq)


def _parameters(columns: Iterable[Column[Any]]) -> dict[str, BindParameter[Any]]:
    return {column.name: bindparam(column.name, type_=column.type) for column in columns}


def _replacing(table: Table, excluded: Any) -> dict[str, Any]:
    return {column.name: excluded[column.name] for column in table.c if column.name not in _KEYS}
