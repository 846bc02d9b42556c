"""Bugs that are planted at run time, to prove that simulations find bugs of their kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, timedelta
from types import SimpleNamespace
from typing import Any, TypeAlias
from unittest.mock import patch

from sqlalchemy import delete, literal

from workflow_store import InMemoryWorkflowStore, RunSnapshot, memory
from workflow_store.sql import database, group_commit, methods, retry, rows, unsettled, views
from workflow_store.sql.dialects import POSTGRESQL, UtcDateTime
from workflow_store.sql.dialects.postgresql import dialect, sessions, timeouts
from workflow_store.sql.models import ClaimRow
from workflow_store.sql.queries import claims

from . import environment

__all__ = ["BUGS", "planted"]

Replace: TypeAlias = Callable[[Any, str, Any], Any]
"""Replaces an attribute while the bug is planted, and returns what it was."""

BUGS: dict[str, Callable[[Replace], None]] = {}
"""The bugs by name; the docstring of each says what is wrong."""

_GroupCommit = group_commit.GroupCommit
_Database = database.Database
_Postgresql = type(POSTGRESQL)


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a bug while the block runs; None plants nothing."""
    with ExitStack() as patches:

        def replace(owner: Any, attribute: str, new: Any) -> Any:
            old = getattr(owner, attribute)
            patches.enter_context(patch.object(owner, attribute, new))
            return old

        if name is not None:
            BUGS[name](replace)
        yield


def _bug(plant: Callable[[Replace], None]) -> Callable[[Replace], None]:
    BUGS[plant.__name__] = plant
    return plant


# -- attempts of unknown outcome ---------------------------------------------------------


@_bug
def late_write(replace: Replace) -> None:
    """A session that may still commit is neither terminated nor waited for."""

    def end_session(self: Any, *_: Any) -> asyncio.Future[None]:
        over: asyncio.Future[None] = self.loop.create_future()
        over.set_result(None)
        return over

    replace(_Database, "_end_session", end_session)


@_bug
def terminated_is_gone(replace: Replace) -> None:
    """A session counts as gone as soon as it was asked to terminate."""

    async def end_session(*arguments: Any) -> bool:
        await old(*arguments)
        return True

    old = replace(dialect, "end_session", end_session)


@_bug
def no_lock_behind_a_pooler(replace: Replace) -> None:
    """A transaction behind a pooler takes no lock by which its session is found."""
    replace(sessions.Session, "begin", "BEGIN")


@_bug
def blind_retry(replace: Replace) -> None:
    """An attempt whose answer was lost is repeated."""
    replace(timeouts, "raise_if_unknown", lambda *_: None)
    replace(dialect, "raise_if_unknown", lambda *_: None)


@_bug
def lost_means_rolled_back(replace: Replace) -> None:
    """A lost connection counts as a rollback."""
    replace(timeouts, "was_rolled_back", lambda *_, **__: True)


@_bug
def read_back_believes(replace: Replace) -> None:
    """What was to be written counts as written, without reading it back."""

    async def read_back(_: Any, __: Any, rows: list[Any], *___: Any) -> list[Any]:
        return [True] * len(rows)

    replace(_Database, "_read_back", read_back)


@_bug
def read_does_not_wait(replace: Replace) -> None:
    """A read does not wait for an attempt that may still change its run."""

    async def read(self: Any, read: Any, key: Any, *, subject: str = "run") -> Any:
        work = self._with_retries(lambda: self._fetch(read, key), f" for {subject}")
        return await database.shielded(work, self._tasks)

    replace(_Database, "read", read)


@_bug
def calls_on_many_runs_do_not_wait(replace: Replace) -> None:
    """A call across runs does not wait for an attempt that may change one of them."""

    async def wait(self: Any, runs: Any, *arguments: Any, **keywords: Any) -> None:
        if runs is not None:
            await old(self, runs, *arguments, **keywords)

    old = replace(unsettled.Unsettled, "wait", wait)


@_bug
def cancelled_claim(replace: Replace) -> None:
    """A cancelled claim is executed after later calls."""

    async def shielded(work: Awaitable[Any], tasks: set[Any], *_: Any) -> Any:
        return await old(work, tasks)

    old = replace(database, "shielded", shielded)


@_bug
def cancelled_write(replace: Replace) -> None:
    """A cancelled write is executed after later calls."""
    replace(_GroupCommit, "batch_under_way", lambda _: None)


@_bug
def closed_connection(replace: Replace) -> None:
    """A closed connection goes back to the pool."""
    replace(_Postgresql, "is_closed", lambda *_: False)


@_bug
def executed_twice(replace: Replace) -> None:
    """An attempt is repeated after it succeeded."""

    async def run(self: Any, attempt: Callable[[], Awaitable[Any]]) -> Any:
        await old(self, attempt)
        return await old(self, attempt)

    old = replace(retry.RetryPolicy, "run", run)


# -- group commit ------------------------------------------------------------------------


@_bug
def last_of_a_batch_is_lost(replace: Replace) -> None:
    """The last write of a batch is acknowledged and not executed."""

    async def execute(self: Any, write: Any, rows: Any) -> list[Any]:
        if len(rows) == 1:
            return list(await old(self, write, rows))
        return [*await old(self, write, rows[:-1]), True]

    old = replace(_Database, "_execute", execute)


@_bug
def answer_of_another(replace: Replace) -> None:
    """The callers of a batch receive each other's answers."""

    async def commit(*arguments: Any) -> list[Any]:
        return list(reversed(await old(*arguments)))

    old = replace(_Database, "_commit", commit)


@_bug
def cancelled_caller_drops_another(replace: Replace) -> None:
    """A cancelled caller in a batch removes the row of another one, which is acknowledged."""

    def next_batch(self: Any, statement: Any) -> list[Any]:
        waiting = len(self._turns[statement])
        batch: list[Any] = old(self, statement)
        if batch and len(batch) < waiting and statement not in self._turns:
            batch.pop().done.set_result(True)
        return batch

    old = replace(_GroupCommit, "_next_batch", next_batch)


@_bug
def forgotten_caller(replace: Replace) -> None:
    """The last caller of a batch is never answered."""

    async def settle(self: Any, statement: Any, batch: list[Any]) -> None:
        if len(batch) > 1:
            batch = [*batch[:-1], batch[-1]._replace(done=self._loop.create_future())]
        await old(self, statement, batch)

    old = replace(_GroupCommit, "_settle", settle)


# -- methods -----------------------------------------------------------------------------


@_bug
def no_fence(replace: Replace) -> None:
    """A fenced view writes without its claim."""

    def init(self: Any, store: Any, claim: Any) -> None:
        old(self, store, claim)
        self.writes = store.statements.writes

    async def write(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return await self._database.write(*arguments, **keywords)

    old = replace(views.FencedDatabase, "__init__", init)
    replace(views.FencedDatabase, "write", write)


@_bug
def commit_step_in_two(replace: Replace) -> None:
    """`commit_step` writes the step and the context in two transactions."""

    async def commit_step(self: Any, run: str, step: Any, context: Any) -> None:
        await self.upsert_step(run, step)
        await self.update_context(run, context)

    replace(methods.StoreMethods, "commit_step", commit_step)


@_bug
def load_run_in_two(replace: Replace) -> None:
    """`load_run` reads the run and its steps as of two moments."""

    async def load_run(self: Any, run: str) -> Any:
        state = await self.get_run(run)
        return state and RunSnapshot(state, await self.list_steps(run))

    replace(methods.StoreMethods, "load_run", load_run)


@_bug
def missing_run_is_ignored(replace: Replace) -> None:
    """A write of a step of a missing run is acknowledged."""

    async def upsert_step(self: Any, run: str, step: Any) -> None:
        executor = self._executor
        await executor.write(executor.writes.upsert_step, rows.step_row, run, step)

    replace(methods.StoreMethods, "upsert_step", upsert_step)


@_bug
def lease_by_the_clients_clock(replace: Replace) -> None:
    """A lease begins by the clock of the process."""

    async def insert(connection: Any, _: Any, *arguments: Any) -> Any:
        return await old(connection, SimpleNamespace(now=now), *arguments)

    def now(plus_s: Any) -> Any:
        ends = environment.ProcessDatetime.now(UTC) + timedelta(seconds=plus_s.value)
        return literal(ends, UtcDateTime)

    old = replace(claims, "_insert", insert)


@_bug
def held_by_nobody(replace: Replace) -> None:
    """A claim is granted although the lease of another owner holds."""

    async def claim_run(connection: Any, kind: Any, run: str, *arguments: Any) -> Any:
        held = delete(ClaimRow).where(ClaimRow.run_task_id == run)
        await connection.execute(held)
        return await old(connection, kind, run, *arguments)

    old = replace(claims, "claim_run", claim_run)


# -- tables ------------------------------------------------------------------------------


@_bug
def delete_leaves_steps(replace: Replace) -> None:
    """The tables have no cascade from a run to its steps and its claim."""
    replace(environment, "ENFORCES_FOREIGN_KEYS", False)


@_bug
def update_moves_a_step(replace: Replace) -> None:
    """A step that is written again moves to the end."""

    async def fetch(self: Any, driver: Any, calls: Any, *arguments: Any, **keywords: Any) -> Any:
        moved = [(sql.replace("BY steps.seq", "BY steps.started_at"), row) for sql, row in calls]
        return await old(self, driver, moved, *arguments, **keywords)

    old = replace(_Postgresql, "fetch", fetch)


# -- the store in memory -----------------------------------------------------------------


@_bug
def memory_shares_objects(replace: Replace) -> None:
    """The store in memory keeps the objects of its callers."""
    same = SimpleNamespace(
        encode_stored=lambda value, **_: value, decode_stored=lambda value: value
    )
    replace(memory, "json_codec", same)


@_bug
def memory_forgets_steps(replace: Replace) -> None:
    """In memory, creating a run again deletes its steps."""

    async def create_run(self: Any, state: Any) -> None:
        self._contents.runs.pop(state.run_task_id, None)
        await old(self, state)

    old = replace(InMemoryWorkflowStore, "create_run", create_run)
