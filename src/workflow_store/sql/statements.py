"""The statements of the hot path: written once for both databases, compiled once for a driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, TypeAlias, TypedDict

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Float,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    Update,
    UpdateBase,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
    update,
)

from .dialects import Identifier, JsonText, StoreDialect
from .models import Base

__all__ = ["Read", "Statement", "Statements", "Write", "Writes"]

_RUNS = Base.metadata.tables["runs"]
_STEPS = Base.metadata.tables["steps"]
_CLAIMS = Base.metadata.tables["claims"]

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
# What is given and kept nowhere: which of two commits is the later, and a claim that must hold.
TURN: Column[Any] = Column("turn", BigInteger)
COMMIT = [*STEP, *CONTEXT[1:], TURN]
FENCE: list[Column[Any]] = [Column("fence_run", Identifier), Column("fence_token", BigInteger)]
# The statuses that are given, in which a step does not wait any more.
ENDED: list[Column[Any]] = [Column(f"ended_{number}", Text) for number in range(3)]
WAITING = [_STEPS.c.wait_task_id, *ENDED]
LEASE: Column[Any] = Column("lease_s", Float)
RENEWAL = [_CLAIMS.c.run_task_id, _CLAIMS.c.token, LEASE]


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
        turn: gives what sorts rows for all statements but the first, where they may be of
            one run; None where they are not.
    """

    one: tuple[Statement, ...]
    many: Statement | None
    key: Callable[[Sequence[Any]], Any]
    answer: Callable[[Sequence[Any]], Any]
    returns: bool = False
    turn: Callable[[Sequence[Any]], Any] | None = None


class Statements:
    """Every statement of the hot path, for one database and one schema.

    Args:
        dialect: the database's dialect.
        driver: SQLAlchemy's own dialect, which knows the driver's parameters.
        schema: the schema of the tables, None for the connection's own.
    """

    def __init__(self, dialect: StoreDialect, driver: Dialect, schema: str | None) -> None:
        compiler = _Compiler(dialect, driver, schema)
        self.writes = Writes(compiler, fenced=False)
        self.get_run = compiler.read(KEY, select(*RUN).where(_this_run()))
        this_step = _STEPS.c.step_id == bindparam("step_id")
        self.get_step = compiler.read(STEP_KEY, select(*STEP_READ).where(_of_this_run(), this_step))
        self.list_steps = compiler.read(
            KEY, select(*STEP_READ).where(_of_this_run()).order_by(_STEPS.c.seq)
        )
        # The run, which has 0 for its `seq`, and its steps.
        self.load_run = compiler.read(
            KEY,
            select(*_of_snapshot(RUN, literal_column("0"))).where(_this_run()),
            select(*_of_snapshot(STEP_READ, _STEPS.c.seq)).where(_of_this_run()),
        )
        self.find_waiting_step = compiler.read(
            WAITING,
            select(_STEPS.c.run_task_id, *STEP_READ)
            .where(_STEPS.c.wait_task_id == bindparam("wait_task_id"))
            .where(*(_STEPS.c.status != bindparam(ended.name) for ended in ENDED))
            .order_by(_STEPS.c.seq.desc()),
        )
        claim = [_CLAIMS.c.run_task_id, _CLAIMS.c.token]
        self.get_claim = compiler.read(
            claim, select(_CLAIMS.c.token).where(*(c == bindparam(c.name) for c in claim))
        )
        self._compiler = compiler

    @cached_property
    def fenced(self) -> Writes:
        """The writes that need a claim, with the run and the token of it at the end of a row."""
        return Writes(self._compiler, fenced=True)

    @cached_property
    def renew_claim(self) -> Write:
        """Makes claims hold for longer; where one is locked, it is not waited for."""
        return self._renewal(together=True)

    @cached_property
    def renew_locked_claim(self) -> Write:
        """Does the same, alone, and waits."""
        return self._renewal(together=False)

    def _renewal(self, *, together: bool) -> Write:
        dialect = self._compiler.dialect
        given = dialect.given_rows(RENEWAL) if together else None
        one = (
            update(_CLAIMS)
            .where(*(_CLAIMS.c[name] == bindparam(name) for name in ("run_task_id", "token")))
            .values(expires_at=dialect.now(plus_s=bindparam("lease_s", type_=Float)))
            .returning(_CLAIMS.c.run_task_id, _CLAIMS.c.token, _CLAIMS.c.expires_at)
        )
        many = None
        if given is not None:
            locked = (
                select(_CLAIMS.c.token)
                .where(_CLAIMS.c.token.in_(select(given.c.token)))
                .with_for_update(key_share=True, skip_locked=True)
                .cte("locked")
            )
            many = self._compiler.compile(
                RENEWAL,
                update(_CLAIMS)
                .where(_CLAIMS.c.token == locked.c.token)
                .where(_CLAIMS.c.token == given.c.token)
                .where(_CLAIMS.c.run_task_id == given.c.run_task_id)
                .values(expires_at=dialect.now(plus_s=given.c.lease_s))
                .returning(_CLAIMS.c.run_task_id, _CLAIMS.c.token, _CLAIMS.c.expires_at),
            )
        key = itemgetter(0, 1)
        return Write((self._compiler.compile(RENEWAL, one),), many, key, key, returns=True)


class Writes:
    """The five ways to write a run or a step; fenced, each of them needs a claim to hold."""

    def __init__(self, compiler: _Compiler, *, fenced: bool) -> None:
        self._compiler = compiler
        self._dialect = compiler.dialect
        self._fence = FENCE if fenced else []

        context = update(_RUNS).where(_this_run(), *self._fence_holds())
        set_context = context.values(_named(CONTEXT[1:], _parameters(CONTEXT[1:])))
        # Inserts nothing where there is no run, enforced foreign keys or not. A step that is
        # there already keeps its `seq`, which is its place.
        upsert_step = self._upsert(
            _STEPS,
            STEP,
            select(*_parameters(STEP)).where(exists().where(_this_run()), *self._fence_holds()),
        )
        # The steps and the claim go by the cascade, and by statements of their own where a
        # connection may not enforce foreign keys.
        tables = [_RUNS] if self._dialect.enforces_foreign_keys else [_RUNS, _STEPS, _CLAIMS]

        self.create_run = self._write(
            RUN,
            KEY,
            [
                self._upsert(
                    _RUNS, RUN, select(*_parameters(RUN)).where(true(), *self._fence_holds())
                )
            ],
            # No lock on what is replaced, but where claims are to be locked after it.
            lambda batch: [batch.upsert(_RUNS, RUN, KEY, batch.fence)],
            lock=_NO_KEY_UPDATE if fenced else None,
            needs_run=False,
        )
        self.update_context = self._write(
            CONTEXT,
            KEY,
            [set_context],
            lambda batch: [batch.update_context(batch.given, batch.found)],
            lock=_NO_KEY_UPDATE,
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
                delete(_RUNS).where(_RUNS.c.run_task_id == batch.given.c.run_task_id, *batch.found)
            ],
            lock=_UPDATE,
            needs_run=False,
        )
        # The share lock keeps the run from being deleted in between, which would fail the
        # other rows with this one.
        self.upsert_step = self._write(
            STEP,
            STEP_KEY,
            [upsert_step],
            lambda batch: [batch.upsert(_STEPS, STEP, STEP_KEY, batch.found)],
            lock=_KEY_SHARE,
        )
        self.commit_step = self._write(
            COMMIT,
            STEP_KEY,
            [upsert_step, set_context],
            lambda batch: [
                batch.upsert(_STEPS, STEP, STEP_KEY, batch.found),
                batch.update_context(batch.latest_of_each_run(), []),
            ],
            lock=_NO_KEY_UPDATE,
            turn=itemgetter(COMMIT.index(TURN)),
        )

    def _write(
        self,
        columns: list[Column[Any]],
        key_columns: list[Column[Any]],
        one: list[UpdateBase],
        many: Callable[[_Batch], list[Any]],
        *,
        lock: _Lock | None,
        needs_run: bool = True,
        turn: Callable[[Sequence[Any]], Any] | None = None,
    ) -> Write:
        fence_places = range(len(columns), len(columns) + len(self._fence))
        columns = [*columns, *self._fence]
        given = self._dialect.given_rows(columns)
        together = None
        if given is not None:
            keys = self._dialect.given_rows([*KEY, *self._fence])
            batch = _Batch(self._dialect, given, keys, lock, fenced=bool(self._fence))
            statement = batch.answer(many(batch), needs_run=needs_run)
            together = self._compiler.compile(columns, statement)
            if self._fence or len(one) > 1:
                one = []  # only the other one takes its locks in order
        return Write(
            tuple(self._compiler.compile(columns, statement) for statement in one),
            together,
            key=_places([*range(len(key_columns)), *fence_places]),
            answer=_places([0, *fence_places]),
            turn=turn,
        )

    def _upsert(self, table: Table, columns: Sequence[Column[Any]], rows: Select[Any]) -> Insert:
        return _upsert(self._dialect, table, columns, rows)

    def _fence_holds(self) -> list[ColumnElement[bool]]:
        return [
            exists().where(
                _CLAIMS.c.run_task_id == bindparam("fence_run"),
                _CLAIMS.c.token == bindparam("fence_token"),
            )
            for _ in self._fence[:1]
        ]


class _Lock(TypedDict, total=False):
    """The strength of a lock, as `with_for_update` takes it."""

    read: bool
    key_share: bool


_KEY_SHARE = _Lock(read=True, key_share=True)
_NO_KEY_UPDATE = _Lock(key_share=True)
_UPDATE = _Lock()


class _Batch:
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
        lock: _Lock | None,
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
                select(_RUNS.c.run_task_id)
                .where(_RUNS.c.run_task_id.in_(select(keys.c.run_task_id)))
                .order_by(_RUNS.c.run_task_id)
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
            select(_CLAIMS.c.run_task_id, _CLAIMS.c.token)
            .where(_CLAIMS.c.token.in_(select(self._keys.c.fence_token)))
            .where(runs >= literal_column("0"))  # always so, but the runs must be locked to tell
            .order_by(_CLAIMS.c.token)
            .with_for_update(**_KEY_SHARE)
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
        return _upsert(self._dialect, table, columns, rows)

    def update_context(self, source: FromClause, where: Sequence[ColumnElement[bool]]) -> Update:
        values = _named(CONTEXT[1:], self._values(source, CONTEXT[1:]))
        same_run = _RUNS.c.run_task_id == source.c.run_task_id
        return update(_RUNS).where(same_run, *where).values(values)

    def latest_of_each_run(self) -> FromClause:
        given = self.given
        age = func.row_number().over(partition_by=given.c.run_task_id, order_by=given.c.turn.desc())
        ranked = (
            select(*(given.c[column.name] for column in CONTEXT), age.label("age"))
            .where(*self.found)
            .cte("ranked")
        )
        return select(ranked).where(ranked.c.age == literal_column("1")).cte("latest")

    @staticmethod
    def _values(source: FromClause, columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
        return [
            cast(source.c[column.name], column.type)
            if isinstance(column.type, JsonText)
            else source.c[column.name]
            for column in columns
        ]


class _Compiler:
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
        return Statement(str(compiled), _places([names.index(n) for n in compiled.positiontup]))


def _places(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(places) == 1:
        return lambda values: (values[places[0]],)
    return itemgetter(*places)


def _upsert(
    dialect: StoreDialect, table: Table, columns: Sequence[Column[Any]], rows: Select[Any]
) -> Insert:
    insert = dialect.insert(table).from_select([c.name for c in columns], rows)
    key = [column for column in columns if column.name in {"run_task_id", "step_id"}]
    return insert.on_conflict_do_update(
        index_elements=key,
        set_={c.name: insert.excluded[c.name] for c in columns if c not in set(key)},
    )


def _this_run() -> ColumnElement[bool]:
    return _RUNS.c.run_task_id == bindparam("run_task_id")


def _of_this_run() -> ColumnElement[bool]:
    return _STEPS.c.run_task_id == bindparam("run_task_id")


def _of_snapshot(
    columns: Sequence[Column[Any]], seq: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """Give columns as wide as a run, with `seq` before the two times."""
    padding = [cast(null(), Text)] * (len(RUN) - len(columns))
    return [*columns[:-2], *padding, seq.label("seq"), *columns[-2:]]


def _parameters(columns: Iterable[Column[Any]]) -> list[ColumnElement[Any]]:
    return [bindparam(column.name, type_=column.type) for column in columns]


def _named(
    columns: Iterable[Column[Any]], values: Iterable[ColumnElement[Any]]
) -> dict[str, ColumnElement[Any]]:
    return {column.name: value for column, value in zip(columns, values, strict=True)}
