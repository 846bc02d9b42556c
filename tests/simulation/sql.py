"""PostgreSQL's statements of the store, as SQLite executes them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.schema import CreateIndex, CreateTable

from workflow_store.sql.dialects import POSTGRESQL, SQLITE
from workflow_store.sql.models import Base
from workflow_store.sql.queries.compiler import Statement
from workflow_store.sql.queries.statements import Statements

_T = TypeVar("_T")
Answer: TypeAlias = tuple[str, list[Any]]

__all__ = ["Batched", "Database", "columns_of", "from_postgresql", "is_read"]

_TIME_LENGTH = len("2026-01-31 23:59:59.000000")
_TYPE = r"::(?:VARCHAR|TEXT|BIGINT|INTEGER|FLOAT|JSON|BOOLEAN|TIMESTAMP WITH TIME ZONE)"
_LOCKING = re.compile(r"\s+FOR (NO KEY )?(UPDATE|(KEY )?SHARE)( OF \w+(, \w+)*)?( SKIP LOCKED)?")
_TRANSLATIONS = [
    (re.compile(rf"\$(\d+)(?:{_TYPE})?"), r":p\1"),
    (re.compile(r' COLLATE "C"'), ""),
    (re.compile(r"AS JSON\)"), "AS TEXT)"),
    (
        re.compile(
            r"CAST\(clock_timestamp\(\) \+ (:p\d+) \* interval '1 second' "
            r"AS TIMESTAMP WITH TIME ZONE\)"
        ),
        r"clock_timestamp(\1)",
    ),
    (re.compile(r"clock_timestamp\(\)"), "clock_timestamp(0)"),
    (re.compile(r"TIMESTAMP WITH TIME ZONE"), "TEXT"),
    (_LOCKING, ""),
]


@cache
def from_postgresql(sql: str) -> str:
    """Return a statement in SQLite's words. One lock on the database replaces those on rows."""
    for pattern, replacement in _TRANSLATIONS:
        sql = pattern.sub(replacement, sql)
    return sql


@cache
def is_read(sql: str) -> bool:
    """Return whether a statement only reads, without locking what it reads."""
    return sql.startswith("SELECT") and _LOCKING.search(sql) is None


class Batched(NamedTuple):
    """A statement for many rows, which SQLite executes row by row in one transaction.

    Attributes:
        single: the statements of a row.
        width: how many of its columns, the first ones, are the key.
        fence: the indices of the claim's run and token, if it is fenced.
        requires_run: whether a row is written only if its run exists.
        returns: whether the first statement returns the result.
    """

    single: tuple[Statement, ...]
    width: int
    fence: tuple[int, int] | None
    requires_run: bool
    returns: bool


@cache
def _batched() -> dict[str, Batched]:
    ours = Statements(POSTGRESQL, PGDialect_asyncpg(), None)  # type: ignore[no-untyped-call]
    theirs = Statements(SQLITE, sqlite.dialect(), None)
    found: dict[str, Batched] = {}
    for name in ("create_run", "update_context", "delete_run", "upsert_step", "commit_step"):
        for fenced in (False, True):
            write = getattr(ours.fenced if fenced else ours.writes, name)
            single = getattr(theirs.fenced if fenced else theirs.writes, name).single
            width = 2 if name in {"upsert_step", "commit_step"} else 1
            count = len(write.batched.arguments(_Counted()))
            fence = (count - 2, count - 1) if fenced else None
            requires_run = name not in {"create_run", "delete_run"}
            found[write.batched.sql] = Batched(single, width, fence, requires_run, returns=False)
    renewal = ours.renew_claim.batched
    assert renewal is not None
    (single,) = ours.renew_claim.single  # by the clock of the server, unlike SQLite's own
    single = Statement(from_postgresql(single.sql), single.arguments)
    found[renewal.sql] = Batched((single,), 2, None, requires_run=False, returns=True)
    return found


class _Counted(Sequence[int]):
    """A row of any length, each value of which is its index."""

    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return 100


@cache
def _column_names(sql: str) -> list[str]:
    sql = from_postgresql(sql)
    if "RETURNING" in sql:
        return [name.rpartition(".")[2].strip() for name in sql.split("RETURNING")[1].split(",")]
    if "FROM" not in sql.upper():
        return ["value"] if sql.upper().startswith(("SELECT", "SHOW")) else []
    if not sql.startswith(("SELECT", "WITH")):
        return []
    nothing = dict.fromkeys(re.findall(r":(p\d+)", sql))
    cursor = _scratch().execute(f"SELECT * FROM ({sql}) LIMIT 0", nothing)
    return [column[0] for column in cursor.description]


def columns_of(sql: str) -> list[str]:
    """Return the names of the columns of a result, which `prepare` returns in PostgreSQL."""
    return _column_names(sql)


@cache
def _scratch() -> sqlite3.Connection:
    return Database(lambda: 0.0).connection


class Database:
    """The tables in memory, with at most one transaction of several statements at a time.

    Args:
        clock: the time of the server, in seconds since the epoch.
        is_empty: whether it has no tables yet.
    """

    def __init__(self, clock: Callable[[], float], *, is_empty: bool = False) -> None:
        self.clock = clock
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.create_function("clock_timestamp", 1, self._time)
        self.connection.execute("PRAGMA foreign_keys=ON")
        self._executed: list[tuple[float, str, Sequence[Any]]] = []
        if is_empty:
            return
        dialect = sqlite.dialect()
        for table in Base.metadata.sorted_tables:
            self.connection.execute(str(CreateTable(table).compile(dialect=dialect)))
            for index in table.indexes:
                self.connection.execute(str(CreateIndex(index).compile(dialect=dialect)))

    def _time(self, later_s: float) -> str:
        time = datetime.fromtimestamp(self.clock() + later_s, UTC)
        return time.isoformat(" ", "microseconds")[:_TIME_LENGTH]

    def clear(self) -> None:
        """Make the tables as new."""
        self.rollback()
        for table in ("runs", "steps", "claims", "sqlite_sequence"):
            self.connection.execute(f"DELETE FROM {table}")

    def commit(self) -> None:
        self._executed.clear()
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")

    def rollback(self) -> None:
        self._executed.clear()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def execute_in_transaction(self, sql: str, arguments: Sequence[Any]) -> Answer:
        """Execute a statement of the open transaction, or begin it."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")
        self._executed.append((self.clock(), sql, arguments))
        return self._execute(sql, arguments)

    def execute(self, sql: str, arguments: Sequence[Any]) -> Answer:
        """Execute a statement in a transaction of its own.

        A read beside the open transaction must not see it: that is rolled back, and repeated
        after the read as it was.
        """
        return self._beside(lambda: self._execute(sql, arguments))

    def snapshot(self) -> Database:
        """Return the tables as they are beside the open transaction."""
        copy = Database(self.clock, is_empty=True)
        self._beside(lambda: self.connection.backup(copy.connection))
        return copy

    def _beside(self, work: Callable[[], _T]) -> _T:
        executed, clock = list(self._executed), self.clock
        self.rollback()
        try:
            return work()
        finally:
            for time, sql, arguments in executed:
                self.clock = partial(float, time)
                self.execute_in_transaction(sql, arguments)
            self.clock = clock

    def _execute(self, sql: str, arguments: Sequence[Any]) -> Answer:
        """Execute a statement of PostgreSQL and return its tag and its rows."""
        batched = _batched().get(sql)
        if batched is not None:
            rows = self._execute_batched(batched, list(zip(*map(_stored, arguments), strict=True)))
            return f"SELECT {len(rows)}", rows
        parameters = {f"p{place}": _stored(value) for place, value in enumerate(arguments, 1)}
        cursor = self.connection.execute(from_postgresql(sql), parameters)
        rows = [tuple(map(_returned, row)) for row in cursor.fetchall()]
        verb = "INSERT 0" if sql.startswith("INSERT") else sql[:6]
        return f"{verb} {len(rows) if cursor.description else cursor.rowcount}", rows

    def _execute_batched(self, batched: Batched, rows: list[tuple[Any, ...]]) -> list[Any]:
        # A statement that fails half-way is undone, and nothing else of its transaction.
        self.connection.execute("SAVEPOINT batch")
        try:
            return [
                result
                for row in sorted(rows, key=lambda row: row[: batched.width])
                if (result := self._write_row(batched, row)) is not None
            ]
        except BaseException:
            self.connection.execute("ROLLBACK TO batch")
            raise
        finally:
            self.connection.execute("RELEASE batch")

    def _write_row(self, batched: Batched, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        fence = () if batched.fence is None else tuple(row[index] for index in batched.fence)
        if (
            fence
            and not self.connection.execute(
                "SELECT 1 FROM claims WHERE run_task_id = ? AND token = ?", fence
            ).fetchall()
        ):
            return None
        first, *rest = batched.single
        cursor = self.connection.execute(first.sql, first.arguments(row))
        if batched.returns:
            result = cursor.fetchone()
            return None if result is None else tuple(map(_returned, result))
        if batched.requires_run and cursor.rowcount < 1:
            return None
        for statement in rest:
            self.connection.execute(statement.sql, statement.arguments(row))
        return (row[0], *fence)


def _stored(value: Any) -> Any:
    if type(value) is datetime:
        return SQLITE.encode_datetime(value)
    if isinstance(value, list | tuple):
        return [_stored(item) for item in value]
    return value


def _returned(value: Any) -> Any:
    if type(value) is str and len(value) == _TIME_LENGTH and value[10] == " ":
        return SQLITE.decode_datetime(value)
    return value
