"""The statements of the hot path, written once for both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Float,
    Select,
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

from ..dialects import JsonText, StoreDialect
from ..models import (
    CLAIMS,
    COMMIT_COLUMNS,
    CONTEXT_COLUMNS,
    ENDED_COLUMNS,
    FENCE_COLUMNS,
    RENEWAL_COLUMNS,
    RUN_COLUMNS,
    RUN_KEY,
    RUNS,
    STEP_COLUMNS,
    STEP_KEY,
    STEP_VALUES,
    STEPS,
    WAITING_COLUMNS,
)
from .compiler import Compiler, Read, Write, picker
from .unnest import KEY_SHARE, NO_KEY_UPDATE, UPDATE, Batch, Lock, by_name, upsert

__all__ = ["Statements", "Writes"]


class Statements:
    """The statements of the hot path, compiled for one database and one schema.

    Args:
        dialect: the dialect of the database.
        driver: SQLAlchemy's dialect, which renders the driver's parameters.
        schema: the schema of the tables; None for the connection's search path.
    """

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        compiler = Compiler(dialect, driver, schema)
        self.writes = Writes(compiler, fenced=False)
        this_run = RUNS.c.run_task_id == bindparam("run_task_id")
        of_this_run = STEPS.c.run_task_id == bindparam("run_task_id")
        run = select(*RUN_COLUMNS).where(this_run)
        steps = select(*STEP_VALUES).where(of_this_run)
        this_step = STEPS.c.step_id == bindparam("step_id")
        self.get_run = compiler.read(RUN_KEY, run)
        self.get_step = compiler.read(STEP_KEY, steps.where(this_step))
        self.list_steps = compiler.read(RUN_KEY, steps.order_by(STEPS.c.seq))
        if dialect.reads_in_one_statement:
            # A row has the columns of the run, NULL for a step; those of a step, NULL for the
            # run; and `seq`, 0 for the run, which therefore comes first.
            first = run.add_columns(*_nulls(STEP_VALUES), literal_column("0").label("seq"))
            rest = select(*_nulls(RUN_COLUMNS), *STEP_VALUES, STEPS.c.seq).where(of_this_run)
            self.load_run = compiler.read(RUN_KEY, union_all(first, rest).order_by("seq"))
        else:
            self.load_run = (*self.get_run, *self.list_steps)
        self.find_waiting_step = compiler.read(
            WAITING_COLUMNS,
            select(STEPS.c.run_task_id, *STEP_VALUES)
            .where(STEPS.c.wait_task_id == bindparam("wait_task_id"))
            .where(*(STEPS.c.status != bindparam(column.name) for column in ENDED_COLUMNS))
            .order_by(STEPS.c.seq.desc()),
        )
        claim_key = [CLAIMS.c.run_task_id, CLAIMS.c.token]
        self.get_claim = compiler.read(
            claim_key, select(CLAIMS.c.token).where(*(c == bindparam(c.name) for c in claim_key))
        )
        self._compiler = compiler

    @cached_property
    def fenced(self) -> Writes:
        """The writes that need a claim; its run and token are the last values of a row."""
        return Writes(self._compiler, fenced=True)

    @cached_property
    def renew_claim(self) -> Write:
        """Extends claims; a batch skips claims that are locked."""
        dialect = self._compiler.dialect
        rows = dialect.unnest_source(RENEWAL_COLUMNS)
        single = (
            update(CLAIMS)
            .where(*(CLAIMS.c[name] == bindparam(name) for name in ("run_task_id", "token")))
            .values(expires_at=dialect.now(plus_s=bindparam("lease_s", type_=Float)))
            .returning(CLAIMS.c.run_task_id, CLAIMS.c.token, CLAIMS.c.expires_at)
        )
        batched = None
        if rows is not None:
            locked = (
                select(CLAIMS.c.token)
                .where(CLAIMS.c.token.in_(select(rows.c.token)))
                .with_for_update(key_share=True, skip_locked=True)
                .cte("locked")
            )
            batched = self._compiler.compile(
                RENEWAL_COLUMNS,
                update(CLAIMS)
                .where(CLAIMS.c.token == locked.c.token)
                .where(CLAIMS.c.token == rows.c.token)
                .where(CLAIMS.c.run_task_id == rows.c.run_task_id)
                .values(expires_at=dialect.now(plus_s=rows.c.lease_s))
                .returning(CLAIMS.c.run_task_id, CLAIMS.c.token, CLAIMS.c.expires_at),
            )
        key = itemgetter(0, 1)
        return Write(
            (self._compiler.compile(RENEWAL_COLUMNS, single),),
            batched,
            key=key,
            match_key=key,
            payload=picker([]),
            returns=True,
        )

    @cached_property
    def renew_locked_claim(self) -> Write:
        """Extends one claim, and waits for its lock."""
        return replace(self.renew_claim, batched=None)


class Writes:
    """The five writes of a run or a step; if fenced, each needs a claim that holds."""

    def __init__(self, compiler: Compiler, *, fenced: bool) -> None:
        self._compiler = compiler
        self._dialect = compiler.dialect
        self._fence = FENCE_COLUMNS if fenced else []

        this_run = RUNS.c.run_task_id == bindparam("run_task_id")
        set_context = (
            update(RUNS)
            .where(this_run, *self._claim_holds())
            .values(by_name(CONTEXT_COLUMNS[1:], _parameters(CONTEXT_COLUMNS[1:])))
        )
        # Inserts nothing if the run does not exist, even if foreign keys are not enforced. An
        # existing step keeps its `seq`, which is its position.
        upsert_step = upsert(
            self._dialect,
            STEPS,
            STEP_COLUMNS,
            select(*_parameters(STEP_COLUMNS)).where(
                exists().where(this_run), *self._claim_holds()
            ),
        )
        # The cascade deletes the steps and the claim; so do statements of their own if a
        # connection may not enforce foreign keys.
        tables = [RUNS] if self._dialect.enforces_foreign_keys else [RUNS, STEPS, CLAIMS]

        self.create_run = self._write(
            RUN_COLUMNS,
            RUN_KEY,
            [
                upsert(
                    self._dialect,
                    RUNS,
                    RUN_COLUMNS,
                    select(*_parameters(RUN_COLUMNS)).where(true(), *self._claim_holds()),
                )
            ],
            # No lock on a replaced run, unless claims are locked after it.
            lambda batch: [batch.upsert(RUNS, RUN_COLUMNS, RUN_KEY, batch.fence_conditions)],
            lock=NO_KEY_UPDATE if fenced else None,
            requires_run=False,
            applied=[_equals(RUN_COLUMNS)],
        )
        self.update_context = self._write(
            CONTEXT_COLUMNS,
            RUN_KEY,
            [set_context],
            lambda batch: [batch.update_context(batch.rows, batch.write_conditions)],
            lock=NO_KEY_UPDATE,
            applied=[_equals(CONTEXT_COLUMNS)],
        )
        self.delete_run = self._write(
            RUN_KEY,
            RUN_KEY,
            [
                delete(table).where(
                    table.c.run_task_id == bindparam("run_task_id"), *self._claim_holds()
                )
                for table in tables
            ],
            lambda batch: [
                delete(RUNS).where(
                    RUNS.c.run_task_id == batch.rows.c.run_task_id, *batch.write_conditions
                )
            ],
            lock=UPDATE,
            requires_run=False,
            # The claim is deleted, too: who deleted a run is unknown.
            applied=None if fenced else [~exists().where(this_run)],
            succeeds_once=fenced,
        )
        # The share lock keeps a run from being deleted meanwhile, which would fail the other
        # rows of the batch.
        self.upsert_step = self._write(
            STEP_COLUMNS,
            STEP_KEY,
            [upsert_step],
            lambda batch: [batch.upsert(STEPS, STEP_COLUMNS, STEP_KEY, batch.write_conditions)],
            lock=KEY_SHARE,
            applied=[_equals(STEP_COLUMNS)],
        )
        self.commit_step = self._write(
            COMMIT_COLUMNS,
            STEP_KEY,
            [upsert_step, set_context],
            lambda batch: [
                batch.upsert(STEPS, STEP_COLUMNS, STEP_KEY, batch.write_conditions),
                batch.update_context(batch.last_of_each_run(), []),
            ],
            lock=NO_KEY_UPDATE,
            applied=[_equals(STEP_COLUMNS), _equals(CONTEXT_COLUMNS)],
        )

    def _write(
        self,
        columns: list[Column[Any]],
        key_columns: list[Column[Any]],
        single: list[UpdateBase],
        batched: Callable[[Batch], list[UpdateBase]],
        *,
        lock: Lock | None,
        requires_run: bool = True,
        applied: list[ColumnElement[bool]] | None,
        succeeds_once: bool = False,
    ) -> Write:
        fence_indices = range(len(columns), len(columns) + len(self._fence))
        columns = [*columns, *self._fence]
        rows = self._dialect.unnest_source(columns)
        keys = self._dialect.unnest_source([*RUN_KEY, *self._fence])
        together = None
        if rows is not None and keys is not None:
            batch = Batch(self._dialect, rows, keys, lock, fenced=bool(self._fence))
            statement = batch.statement(batched(batch), requires_run=requires_run)
            together = self._compiler.compile(columns, statement)
            if self._fence or len(single) > 1:
                single = []  # only the batch takes its locks in order
        return Write(
            tuple(self._compiler.compile(columns, statement) for statement in single),
            together,
            key=picker([*range(len(key_columns)), *fence_indices]),
            match_key=picker([0, *fence_indices]),
            payload=picker(
                [index for index, c in enumerate(columns) if isinstance(c.type, JsonText)]
            ),
            succeeds_once=succeeds_once,
            applied=None if applied is None else cache(partial(self._applied, columns, applied)),
        )

    def _applied(self, columns: list[Column[Any]], applied: list[ColumnElement[bool]]) -> Read:
        row: Select[Any] = select(literal_column("1")).where(*applied, *self._claim_holds())
        return self._compiler.read(columns, row)

    def _claim_holds(self) -> list[ColumnElement[bool]]:
        if not self._fence:
            return []
        return [
            exists().where(
                CLAIMS.c.run_task_id == bindparam("fence_run"),
                CLAIMS.c.token == bindparam("fence_token"),
            )
        ]


def _equals(columns: Iterable[Column[Any]]) -> ColumnElement[bool]:
    """Return whether there is a row with the values of the parameters."""
    conditions = []
    for column in columns:
        value: ColumnElement[Any] = column
        given = bindparam(column.name, type_=column.type)
        if isinstance(column.type, JsonText):  # `json` cannot be compared; its text is unchanged
            value, given = cast(column, Text), bindparam(column.name, type_=Text)
        is_key = column.name in {"run_task_id", "step_id"}  # found by an index
        conditions.append(value == given if is_key else value.is_not_distinct_from(given))
    return exists().where(*conditions)


def _nulls(columns: Sequence[Column[Any]]) -> list[ColumnElement[Any]]:
    """Return NULLs of the columns' types, which the other half of a UNION needs."""
    return [
        cast(null(), Text if isinstance(column.type, JsonText) else column.type)
        for column in columns
    ]


def _parameters(columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [bindparam(column.name, type_=column.type) for column in columns]
