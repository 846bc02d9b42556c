"""The store on SQLAlchemy: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Unpack

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from ..checks import checked_identifier, checked_run, checked_step
from ..errors import RunNotFoundError, SchemaMismatchError, StoreClosedError
from ..state import (
    JsonValue,
    WorkflowExecutionState,
    WorkflowStepState,
)
from ..store import RunSnapshot, WorkflowStore
from . import migrate as migrations
from . import rows
from .database import Database, attempts, to_the_end
from .dialects import EngineOptions, complete_options
from .engine import default_schema, dialect_of, masked, parse_url
from .faults import store_error

__all__ = ["SqlWorkflowStore"]


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
        options: see `EngineOptions`; with an engine of the caller's, only those that are
            about statements: `statement_timeout_s` and `transaction_pooler`.

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
            unused = set(options) - {"statement_timeout_s", "transaction_pooler"}
            if unused:
                raise ValueError(
                    f"A caller's engine is not configured: leave out {', '.join(sorted(unused))}."
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
        self._database: Database | None = None
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Future[Any]] = set()

    # -- life ---------------------------------------------------------------------------

    @property
    def engine(self) -> AsyncEngine:
        """The engine in use: the store's own, to be looked at only, or the caller's.

        Raises:
            StoreClosedError: the store is not open.
        """
        return self._opened().engine

    async def open(self) -> None:
        cancelled = False

        async def opened() -> bool:
            return await self._open(unless=lambda: cancelled)

        opening = asyncio.ensure_future(opened())
        try:
            await to_the_end(opening, self._changes)
        except asyncio.CancelledError:
            # A cancelled `async with` never closes what it opened.
            cancelled = True
            failed = not opening.done() or opening.cancelled() or opening.exception() is not None
            if not failed and opening.result():
                await self.close()
            raise

    async def close(self) -> None:
        await to_the_end(self._close(), self._changes)

    async def _open(self, *, unless: Callable[[], bool]) -> bool:
        """Open a store that is closed, but if nobody waits for it any more."""
        async with self._changing:
            if self._database is not None or unless():
                return False
            engine = self._callers_engine or self._dialect.create_engine(self._url, self._options)
            try:
                await attempts(lambda: self._make_ready(engine), self._dialect)
            except BaseException:
                await self._let_go(engine)
                raise
            if unless():
                await self._let_go(engine)
                return False
            self._database = Database(engine, self._dialect, self._options, self._schema)
            return True

    async def _close(self) -> None:
        async with self._changing:
            database, self._database = self._database, None
            if database is not None:
                await database.drain()
                await self._let_go(database.engine)

    async def _make_ready(self, engine: AsyncEngine) -> None:
        try:
            if self._callers_engine is None:
                await self._dialect.prepare(engine, self._options)
        except Exception as error:
            raise store_error(error, self._dialect, masked(self._url)) from error
        try:
            await migrations.check(engine, schema=self._schema)
        except SchemaMismatchError:
            if not self._migrate:
                raise
            await migrations.upgrade(engine, schema=self._schema)

    async def _let_go(self, engine: AsyncEngine) -> None:
        if self._callers_engine is None:
            await engine.dispose()

    def _opened(self) -> Database:
        if self._database is None:
            raise StoreClosedError(
                "The store is not open: use it inside 'async with store:', or await "
                "store.open() first."
            )
        return self._database

    # -- runs ---------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        database = self._opened()
        await database.write(
            database.statements.create_run, lambda: rows.run_row(checked_run(state), self._dialect)
        )

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        database = self._opened()
        key = (checked_identifier(run_task_id, name="run_task_id"),)
        found = await database.read(database.statements.get_run, key)
        return rows.run_from_row(found[0], self._dialect) if found else None

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        database = self._opened()
        found = await database.write(
            database.statements.update_context,
            lambda: rows.context_row(
                checked_identifier(run_task_id, name="run_task_id"),
                context,
                datetime.now(UTC),
                self._dialect,
            ),
        )
        if not found:
            raise RunNotFoundError(run_task_id)

    async def delete_run(self, run_task_id: str) -> None:
        database = self._opened()
        await database.write(
            database.statements.delete_run,
            lambda: (checked_identifier(run_task_id, name="run_task_id"),),
        )

    # -- steps --------------------------------------------------------------------------

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        database = self._opened()
        found = await database.write(
            database.statements.upsert_step,
            lambda: rows.step_row(
                checked_identifier(run_task_id, name="run_task_id"),
                checked_step(step),
                self._dialect,
            ),
        )
        if not found:
            raise RunNotFoundError(run_task_id)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        database = self._opened()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        key = (run_task_id, checked_identifier(step_id, name="step_id"))
        found = await database.read(database.statements.get_step, key)
        return rows.step_from_row(run_task_id, found[0], self._dialect) if found else None

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        database = self._opened()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        found = await database.read(database.statements.list_steps, (run_task_id,))
        return await rows.steps_from_rows(run_task_id, found, self._dialect)

    # -- both ---------------------------------------------------------------------------

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """Give a run and its steps as they are at one moment, None where there is no run.

        The read that a resume makes, in one statement.
        """
        database = self._opened()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        found = await database.read(database.statements.load_run, (run_task_id,))
        if not found or found[0][-3] != 0:
            return None
        run, *steps = found
        return RunSnapshot(
            rows.run_from_row(run, self._dialect),
            await rows.steps_from_rows(run_task_id, steps, self._dialect),
        )
