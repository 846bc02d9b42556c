"""The store on SQLAlchemy: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar, Unpack

from sqlalchemy import URL, Executable, RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import (
    RunNotFoundError,
    SchemaMismatchError,
    StoreClosedError,
    WorkflowStoreError,
)
from ..state import (
    JsonValue,
    WorkflowExecutionState,
    WorkflowStepState,
    checked_identifier,
    checked_run,
    checked_step,
)
from ..store import WorkflowStore
from . import migrate as migrations
from . import rows
from .dialects import EngineOptions, Fault, complete_options
from .engine import default_schema, dialect_of, masked, parse_url
from .faults import store_error
from .statements import Statements

__all__ = ["SqlWorkflowStore"]

_T = TypeVar("_T")

_RETRY_DELAYS_S = (0.05, 0.2, 0.8)
"""Pauses before another attempt; up to half of each is added, so that callers spread out."""


class SqlWorkflowStore(WorkflowStore):
    """Keeps runs in SQLite or PostgreSQL.

    Args:
        url_or_engine: the database, as for `open_store`; or an `AsyncEngine` of the
            caller's, which is used as it is and neither configured nor disposed.
        schema: the PostgreSQL schema of the tables; by default the environment's
            `WORKFLOW_STORE_SCHEMA`, else the one that the connection finds first. SQLite
            has no schemas.
        migrate: whether opening brings the database to the newest revision; by default it
            does on SQLite and only checks on PostgreSQL.
        options: see `EngineOptions`; none with an engine of the caller's.

    Raises:
        ValueError: the database is not supported, or an option is unknown, out of range,
            or given with an engine.

    What a cancelled call had begun goes on to its end in the background, so that no
    connection is left inside a transaction; `close` waits for it.
    """

    def __init__(
        self,
        url_or_engine: str | URL | AsyncEngine,
        *,
        schema: str | None = None,
        migrate: bool | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        if isinstance(url_or_engine, AsyncEngine):
            if options:
                raise ValueError(
                    f"A caller's engine is not configured: leave out {', '.join(options)}."
                )
            self._callers_engine: AsyncEngine | None = url_or_engine
            self._dialect = dialect_of(url_or_engine)
            self._url = url_or_engine.url
        else:
            self._callers_engine = None
            self._dialect, self._url = parse_url(url_or_engine)
        self._options = complete_options(options)
        self._schema = (schema or default_schema()) if self._dialect.supports_schema else None
        self._migrate = self._dialect.migrates_at_opening if migrate is None else migrate
        self._where = masked(self._url)
        self._statements = Statements(self._dialect)
        self._engine: AsyncEngine | None = None
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Future[Any]] = set()
        self._calls: set[asyncio.Future[Any]] = set()

    # -- life ---------------------------------------------------------------------------

    async def open(self) -> None:
        await self._to_the_end(self._open(), self._changes)

    async def close(self) -> None:
        await self._to_the_end(self._close(), self._changes)

    async def _open(self) -> None:
        async with self._changing:
            if self._engine is not None:
                return
            engine = self._callers_engine or self._dialect.create_engine(self._url, self._options)
            try:
                await self._attempts(lambda: self._make_ready(engine))
            except BaseException:
                await self._let_go(engine)
                raise
            if self._schema is not None:
                engine = engine.execution_options(schema_translate_map={None: self._schema})
            self._engine = engine

    async def _close(self) -> None:
        async with self._changing:
            engine, self._engine = self._engine, None
            while self._calls:
                await asyncio.wait(set(self._calls))
            if engine is not None:
                await self._let_go(engine)

    async def _make_ready(self, engine: AsyncEngine) -> None:
        if self._callers_engine is None:
            await self._dialect.prepare(engine, self._options)
        try:
            await migrations.check(engine, schema=self._schema)
        except SchemaMismatchError:
            if not self._migrate:
                raise
            await migrations.upgrade(engine, schema=self._schema)

    async def _let_go(self, engine: AsyncEngine) -> None:
        if self._callers_engine is None:
            await engine.dispose()

    # -- runs ---------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        engine = self._open_engine()
        values = rows.run_values(checked_run(state))
        await self._write(engine, values, self._statements.create_run)

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        engine = self._open_engine()
        key = {"run_task_id": checked_identifier(run_task_id, name="run_task_id")}

        def convert(found: Sequence[RowMapping]) -> WorkflowExecutionState | None:
            return rows.run_from_row(found[0]) if found else None

        return await self._read(engine, key, self._statements.get_run, convert)

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        engine = self._open_engine()
        values = {
            "of_run": checked_identifier(run_task_id, name="run_task_id"),
            "context": rows.context_text(context),
            "updated_at": datetime.now(UTC),
        }
        if not await self._write(engine, values, self._statements.update_context):
            raise RunNotFoundError(run_task_id)

    async def delete_run(self, run_task_id: str) -> None:
        engine = self._open_engine()
        key = {"run_task_id": checked_identifier(run_task_id, name="run_task_id")}
        await self._write(engine, key, *self._statements.delete_run)

    # -- steps --------------------------------------------------------------------------

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        engine = self._open_engine()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        values = rows.step_values(run_task_id, checked_step(step))
        if not await self._write(engine, values, self._statements.upsert_step):
            raise RunNotFoundError(run_task_id)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        engine = self._open_engine()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        key = {
            "run_task_id": run_task_id,
            "step_id": checked_identifier(step_id, name="step_id"),
        }

        def convert(found: Sequence[RowMapping]) -> WorkflowStepState | None:
            return rows.step_from_row(run_task_id, found[0]) if found else None

        return await self._read(engine, key, self._statements.get_step, convert)

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        engine = self._open_engine()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        key = {"run_task_id": run_task_id}

        def convert(found: Sequence[RowMapping]) -> list[WorkflowStepState]:
            return [rows.step_from_row(run_task_id, row) for row in found]

        return await self._read(engine, key, self._statements.list_steps, convert)

    # -- how a call reaches the database -----------------------------------------------

    def _open_engine(self) -> AsyncEngine:
        if self._engine is None:
            raise StoreClosedError(
                "The store is not open: use it inside 'async with store:', or await "
                "store.open() first."
            )
        return self._engine

    async def _read(
        self,
        engine: AsyncEngine,
        parameters: dict[str, Any],
        statement: Executable,
        convert: Callable[[Sequence[RowMapping]], _T],
    ) -> _T:
        async def attempt() -> _T:
            async with engine.connect() as connection:
                found = await connection.execute(statement, parameters)
                return convert(found.mappings().all())

        return await self._to_the_end(self._attempts(attempt), self._calls)

    async def _write(
        self, engine: AsyncEngine, parameters: dict[str, Any], *statements: Executable
    ) -> bool:
        """Run statements in one transaction; tell whether the first one found its row."""

        async def attempt() -> bool:
            async with engine.connect() as connection:
                await self._dialect.begin_write(connection)
                try:
                    first, *_ = [
                        (await connection.execute(statement, parameters)).rowcount
                        for statement in statements
                    ]
                except DBAPIError as error:
                    # The run went while the statement ran.
                    if self._dialect.diagnose(error).fault is Fault.RUN_MISSING:
                        return False
                    raise
                await connection.commit()
                return first > 0

        return await self._to_the_end(self._attempts(attempt), self._calls)

    async def _to_the_end(self, work: Awaitable[_T], tasks: set[asyncio.Future[Any]]) -> _T:
        """Await work that a cancellation of the caller does not stop.

        Cancelling a statement half-way would cost its connection, and with it the whole of
        a database in memory. A task of its own also begins with an empty stack, so that
        what was accepted can be read however deep the caller's own stack is.
        """
        task = asyncio.ensure_future(work)
        tasks.add(task)

        def ended(task: asyncio.Future[_T]) -> None:
            tasks.discard(task)
            if not task.cancelled():
                task.exception()  # a cancelled caller no longer asks for it

        task.add_done_callback(ended)
        return await asyncio.shield(task)

    async def _attempts(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try, and try again where an error is worth it; translate what stays."""
        delays_s = iter(_RETRY_DELAYS_S)
        while True:
            try:
                return await attempt()
            except Exception as error:
                fault = self._dialect.diagnose(error).fault
                delay_s = next(delays_s, None) if fault is Fault.TRANSIENT else None
                if delay_s is None:
                    await self._explain(error, fault)
            await asyncio.sleep(delay_s * (1 + random.random() / 2))  # noqa: S311 - no secret

    async def _explain(self, error: Exception, fault: Fault) -> NoReturn:
        if isinstance(error, WorkflowStoreError):
            raise error
        if fault is Fault.SCHEMA and self._engine is not None:
            await migrations.check(self._engine, schema=self._schema)
        raise store_error(error, self._dialect, self._where) from error
