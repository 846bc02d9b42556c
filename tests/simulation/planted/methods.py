"""Bugs of methods, of tables, and of the store in memory."""

from __future__ import annotations

from datetime import UTC, timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import delete, literal

from workflow_store import InMemoryWorkflowStore, RunSnapshot, memory
from workflow_store.sql import methods, rows, views
from workflow_store.sql.dialects import POSTGRESQL, UtcDateTime
from workflow_store.sql.models import ClaimRow
from workflow_store.sql.queries import claims

from .. import environment
from .registry import Replace, bug

# -- methods -----------------------------------------------------------------------------


@bug
def no_fence(replace: Replace) -> None:
    """A fenced view writes without its claim."""

    def init(self: Any, store: Any, claim: Any) -> None:
        old(self, store, claim)
        self.writes = store.statements.writes

    async def write(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return await self._database.write(*arguments, **keywords)

    old = replace(views.FencedDatabase, "__init__", init)
    replace(views.FencedDatabase, "write", write)


@bug
def commit_step_in_two(replace: Replace) -> None:
    """`commit_step` writes the step and the context in two transactions."""

    async def commit_step(self: Any, run: str, step: Any, context: Any) -> None:
        await self.upsert_step(run, step)
        await self.update_context(run, context)

    replace(methods.StoreMethods, "commit_step", commit_step)


@bug
def load_run_in_two(replace: Replace) -> None:
    """`load_run` reads the run and its steps as of two moments."""

    async def load_run(self: Any, run: str) -> Any:
        state = await self.get_run(run)
        return state and RunSnapshot(state, await self.list_steps(run))

    replace(methods.StoreMethods, "load_run", load_run)


@bug
def missing_run_is_ignored(replace: Replace) -> None:
    """A write of a step of a missing run is acknowledged."""

    async def upsert_step(self: Any, run: str, step: Any) -> None:
        executor = self._executor
        await executor.write(executor.writes.upsert_step, rows.step_row, run, step)

    replace(methods.StoreMethods, "upsert_step", upsert_step)


@bug
def lease_by_the_clients_clock(replace: Replace) -> None:
    """A lease begins by the clock of the process."""

    async def insert(connection: Any, _: Any, *arguments: Any) -> Any:
        return await old(connection, SimpleNamespace(now=now), *arguments)

    def now(plus_s: Any) -> Any:
        ends = environment.ProcessDatetime.now(UTC) + timedelta(seconds=plus_s.value)
        return literal(ends, UtcDateTime)

    old = replace(claims, "_insert", insert)


@bug
def held_by_nobody(replace: Replace) -> None:
    """A claim is granted although the lease of another owner holds."""

    async def claim_run(connection: Any, kind: Any, run: str, *arguments: Any) -> Any:
        held = delete(ClaimRow).where(ClaimRow.run_task_id == run)
        await connection.execute(held)
        return await old(connection, kind, run, *arguments)

    old = replace(claims, "claim_run", claim_run)


# -- tables ------------------------------------------------------------------------------


@bug
def delete_leaves_steps(replace: Replace) -> None:
    """The tables have no cascade from a run to its steps and its claim."""
    replace(environment, "ENFORCES_FOREIGN_KEYS", False)


@bug
def update_moves_a_step(replace: Replace) -> None:
    """A step that is written again moves to the end."""

    async def fetch(self: Any, driver: Any, calls: Any, *arguments: Any, **keywords: Any) -> Any:
        moved = [(sql.replace("BY steps.seq", "BY steps.started_at"), row) for sql, row in calls]
        return await old(self, driver, moved, *arguments, **keywords)

    old = replace(type(POSTGRESQL), "fetch", fetch)


# -- the store in memory -----------------------------------------------------------------


@bug
def memory_shares_objects(replace: Replace) -> None:
    """The store in memory keeps the objects of its callers."""
    same = SimpleNamespace(
        encode_stored=lambda value, **_: value, decode_stored=lambda value: value
    )
    replace(memory, "json_codec", same)


@bug
def memory_forgets_steps(replace: Replace) -> None:
    """In memory, creating a run again deletes its steps."""

    async def create_run(self: Any, state: Any) -> None:
        self._contents.runs.pop(state.run_task_id, None)
        await old(self, state)

    old = replace(InMemoryWorkflowStore, "create_run", create_run)
