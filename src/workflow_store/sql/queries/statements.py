"""The statements of the hot path: written once for both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Float,
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
    update,
)

from ..columns import (
    CLAIMS,
    COMMIT,
    CONTEXT,
    ENDED,
    FENCE,
    KEY,
    RENEWAL,
    RUN,
    RUNS,
    STEP,
    STEP_KEY,
    STEP_READ,
    STEPS,
    WAITING,
)
from ..dialects import StoreDialect
from .compiler import Compiler, Write, places
from .unnest import KEY_SHARE, NO_KEY_UPDATE, UPDATE, Batch, Lock, named, upsert

__all__ = ["Statements", "Writes"]


class Statements:
    """Every statement of the hot path, for one database and one schema.

    Args:
        dialect: the database's dialect.
        driver: SQLAlchemy's own dialect, which knows the driver's parameters.
        schema: the schema of the tables, None for the connection's own.
    """

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        compiler = Compiler(dialect, driver, schema)
        self.writes = Writes(compiler, fenced=False)
        self.get_run = compiler.read(KEY, select(*RUN).where(_this_run()))
        this_step = STEPS.c.step_id == bindparam("step_id")
        self.get_step = compiler.read(STEP_KEY, select(*STEP_READ).where(_of_this_run(), this_step))
        self.list_steps = compiler.read(
            KEY, select(*STEP_READ).where(_of_this_run()).order_by(STEPS.c.seq)
        )
        # The run, which has 0 for its `seq`, and its steps.
        self.load_run = compiler.read(
            KEY,
            select(*_of_snapshot(RUN, literal_column("0"))).where(_this_run()),
            select(*_of_snapshot(STEP_READ, STEPS.c.seq)).where(_of_this_run()),
        )
        self.find_waiting_step = compiler.read(
            WAITING,
            select(STEPS.c.run_task_id, *STEP_READ)
            .where(STEPS.c.wait_task_id == bindparam("wait_task_id"))
            .where(*(STEPS.c.status != bindparam(ended.name) for ended in ENDED))
            .order_by(STEPS.c.seq.desc()),
        )
        claim = [CLAIMS.c.run_task_id, CLAIMS.c.token]
        self.get_claim = compiler.read(
            claim, select(CLAIMS.c.token).where(*(c == bindparam(c.name) for c in claim))
        )
        self._compiler = compiler

    @cached_property
    def fenced(self) -> Writes:
        """The writes that need a claim, with the run and the token of it at the end of a row."""
        return Writes(self._compiler, fenced=True)

    @cached_property
    def renew_claim(self) -> Write:
        """Makes claims hold for longer; where one is locked, it is not waited for."""
        dialect = self._compiler.dialect
        given = dialect.unnest_source(RENEWAL)
        one = (
            update(CLAIMS)
            .where(*(CLAIMS.c[name] == bindparam(name) for name in ("run_task_id", "token")))
            .values(expires_at=dialect.now(plus_s=bindparam("lease_s", type_=Float)))
            .returning(CLAIMS.c.run_task_id, CLAIMS.c.token, CLAIMS.c.expires_at)
        )
        many = None
        if given is not None:
            locked = (
                select(CLAIMS.c.token)
                .where(CLAIMS.c.token.in_(select(given.c.token)))
                .with_for_update(key_share=True, skip_locked=True)
                .cte("locked")
            )
            many = self._compiler.compile(
                RENEWAL,
                update(CLAIMS)
                .where(CLAIMS.c.token == locked.c.token)
                .where(CLAIMS.c.token == given.c.token)
                .where(CLAIMS.c.run_task_id == given.c.run_task_id)
                .values(expires_at=dialect.now(plus_s=given.c.lease_s))
                .returning(CLAIMS.c.run_task_id, CLAIMS.c.token, CLAIMS.c.expires_at),
            )
        key = itemgetter(0, 1)
        return Write((self._compiler.compile(RENEWAL, one),), many, key, key, returns=True)

    @cached_property
    def renew_locked_claim(self) -> Write:
        """Does the same, alone, and waits."""
        return replace(self.renew_claim, many=None)


class Writes:
    """The five ways to write a run or a step; fenced, each of them needs a claim to hold."""

    def __init__(self, compiler: Compiler, *, fenced: bool) -> None:
        self._compiler = compiler
        self._dialect = compiler.dialect
        self._fence = FENCE if fenced else []

        context = update(RUNS).where(_this_run(), *self._fence_holds())
        set_context = context.values(named(CONTEXT[1:], _parameters(CONTEXT[1:])))
        # Inserts nothing where there is no run, enforced foreign keys or not. A step that is
        # there already keeps its `seq`, which is its place.
        upsert_step = upsert(
            self._dialect,
            STEPS,
            STEP,
            select(*_parameters(STEP)).where(exists().where(_this_run()), *self._fence_holds()),
        )
        # The steps and the claim go by the cascade, and by statements of their own where a
        # connection may not enforce foreign keys.
        tables = [RUNS] if self._dialect.enforces_foreign_keys else [RUNS, STEPS, CLAIMS]

        self.create_run = self._write(
            RUN,
            KEY,
            [
                upsert(
                    self._dialect,
                    RUNS,
                    RUN,
                    select(*_parameters(RUN)).where(true(), *self._fence_holds()),
                )
            ],
            # No lock on what is replaced, but where claims are to be locked after it.
            lambda batch: [batch.upsert(RUNS, RUN, KEY, batch.fence)],
            lock=NO_KEY_UPDATE if fenced else None,
            needs_run=False,
        )
        self.update_context = self._write(
            CONTEXT,
            KEY,
            [set_context],
            lambda batch: [batch.update_context(batch.given, batch.found)],
            lock=NO_KEY_UPDATE,
        )
        self.delete_run = self._write(
            KEY,
            KEY,
            [
                delete(table).where(
                    table.c.run_task_id == bindparam("run_task_id"), *self._fence_holds()
                )
                for table in tables
            ],
            lambda batch: [
                delete(RUNS).where(RUNS.c.run_task_id == batch.given.c.run_task_id, *batch.found)
            ],
            lock=UPDATE,
            needs_run=False,
        )
        # The share lock keeps the run from being deleted in between, which would fail the
        # other rows with this one.
        self.upsert_step = self._write(
            STEP,
            STEP_KEY,
            [upsert_step],
            lambda batch: [batch.upsert(STEPS, STEP, STEP_KEY, batch.found)],
            lock=KEY_SHARE,
        )
        self.commit_step = self._write(
            COMMIT,
            STEP_KEY,
            [upsert_step, set_context],
            lambda batch: [
                batch.upsert(STEPS, STEP, STEP_KEY, batch.found),
                batch.update_context(batch.last_of_each_run(), []),
            ],
            lock=NO_KEY_UPDATE,
        )

    def _write(
        self,
        columns: list[Column[Any]],
        key_columns: list[Column[Any]],
        one: list[UpdateBase],
        many: Callable[[Batch], list[Any]],
        *,
        lock: Lock | None,
        needs_run: bool = True,
    ) -> Write:
        fence_places = range(len(columns), len(columns) + len(self._fence))
        columns = [*columns, *self._fence]
        given = self._dialect.unnest_source(columns)
        together = None
        if given is not None:
            keys = self._dialect.unnest_source([*KEY, *self._fence])
            batch = Batch(self._dialect, given, keys, lock, fenced=bool(self._fence))
            statement = batch.answer(many(batch), needs_run=needs_run)
            together = self._compiler.compile(columns, statement)
            if self._fence or len(one) > 1:
                one = []  # only the other one takes its locks in order
        return Write(
            tuple(self._compiler.compile(columns, statement) for statement in one),
            together,
            key=places([*range(len(key_columns)), *fence_places]),
            answer=places([0, *fence_places]),
        )

    def _fence_holds(self) -> list[ColumnElement[bool]]:
        if not self._fence:
            return []
        return [
            exists().where(
                CLAIMS.c.run_task_id == bindparam("fence_run"),
                CLAIMS.c.token == bindparam("fence_token"),
            )
        ]


def _this_run() -> ColumnElement[bool]:
    return RUNS.c.run_task_id == bindparam("run_task_id")


def _of_this_run() -> ColumnElement[bool]:
    return STEPS.c.run_task_id == bindparam("run_task_id")


def _of_snapshot(
    columns: Sequence[Column[Any]], seq: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """Give columns as wide as a run, with `seq` before the two times."""
    padding = [cast(null(), Text)] * (len(RUN) - len(columns))
    return [*columns[:-2], *padding, seq.label("seq"), *columns[-2:]]


def _parameters(columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [bindparam(column.name, type_=column.type) for column in columns]
