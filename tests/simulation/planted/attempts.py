"""Bugs of attempts of unknown outcome, and of group commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from workflow_store.sql import database, group_commit, retry, unsettled
from workflow_store.sql.dialects import POSTGRESQL
from workflow_store.sql.dialects.postgresql import dialect, sessions, timeouts

from .registry import Replace, bug

_GroupCommit = group_commit.GroupCommit
_Database = database.Database
_Postgresql = type(POSTGRESQL)


# -- attempts of unknown outcome ---------------------------------------------------------


@bug
def late_write(replace: Replace) -> None:
    """A session that may still commit is neither terminated nor waited for."""

    async def end_session(*_: Any) -> bool:
        return True

    replace(_Database, "_end_session", end_session)


@bug
def terminated_is_gone(replace: Replace) -> None:
    """A session counts as gone as soon as it was asked to terminate."""

    async def end_session(*arguments: Any) -> bool:
        await old(*arguments)
        return True

    old = replace(dialect, "end_session", end_session)


@bug
def not_asked_is_gone(replace: Replace) -> None:
    """A session counts as gone if the server could not be asked."""

    async def end_session(*arguments: Any) -> bool:
        try:
            return bool(await old(*arguments))
        except Exception:
            return True

    old = replace(_Database, "_end_session", end_session)


@bug
def runs_are_replaced(replace: Replace) -> None:
    """Another cancelled call of a batch replaces the runs that the batch may change."""

    def add(self: Any, over: Any, runs: Any) -> None:
        if over in self.attempts:
            self.attempts[over] = frozenset()
        old(self, over, runs)

    old = replace(unsettled.Unsettled, "add", add)


@bug
def batch_ignores_doubts(replace: Replace) -> None:
    """A batch that was queued before an attempt became doubtful does not stop."""
    replace(unsettled.Unsettled, "blocked", lambda *_: {})


@bug
def no_lock_behind_a_pooler(replace: Replace) -> None:
    """A transaction behind a pooler takes no lock by which its session is found."""
    replace(sessions.Session, "begin", "BEGIN")


@bug
def blind_retry(replace: Replace) -> None:
    """An attempt whose answer was lost is repeated."""
    replace(timeouts, "raise_if_unknown", lambda *_: None)
    replace(dialect, "raise_if_unknown", lambda *_: None)


@bug
def lost_means_rolled_back(replace: Replace) -> None:
    """A lost connection counts as a rollback."""
    replace(timeouts, "was_rolled_back", lambda *_, **__: True)


@bug
def read_back_believes(replace: Replace) -> None:
    """What was to be written counts as written, without reading it back."""

    async def read_back(_: Any, __: Any, rows: list[Any], *___: Any) -> list[Any]:
        return [True] * len(rows)

    replace(_Database, "_read_back", read_back)


@bug
def read_does_not_wait(replace: Replace) -> None:
    """A read does not wait for an attempt that may still change its run."""

    async def read(self: Any, read: Any, key: Any, *, subject: str = "run") -> Any:
        work = self._with_retries(lambda: self._fetch(read, key), f" for {subject}")
        return await database.shielded(work, self._tasks)

    replace(_Database, "read", read)


@bug
def calls_on_many_runs_do_not_wait(replace: Replace) -> None:
    """A call across runs does not wait for an attempt that may change one of them."""

    async def wait(self: Any, runs: Any, *arguments: Any, **keywords: Any) -> None:
        if runs is not None:
            await old(self, runs, *arguments, **keywords)

    old = replace(unsettled.Unsettled, "wait", wait)


@bug
def cancelled_claim(replace: Replace) -> None:
    """A cancelled claim is executed after later calls."""

    async def shielded(work: Awaitable[Any], tasks: set[Any], *_: Any) -> Any:
        return await old(work, tasks)

    old = replace(database, "shielded", shielded)


@bug
def cancelled_write(replace: Replace) -> None:
    """A cancelled write is executed after later calls."""
    replace(_GroupCommit, "batch_under_way", lambda _: None)


@bug
def closed_connection(replace: Replace) -> None:
    """A closed connection goes back to the pool."""
    replace(_Postgresql, "is_closed", lambda *_: False)


@bug
def executed_twice(replace: Replace) -> None:
    """An attempt is repeated after it succeeded."""

    async def run(self: Any, attempt: Callable[[], Awaitable[Any]]) -> Any:
        await old(self, attempt)
        return await old(self, attempt)

    old = replace(retry.RetryPolicy, "run", run)


# -- group commit ------------------------------------------------------------------------


@bug
def last_of_a_batch_is_lost(replace: Replace) -> None:
    """The last write of a batch is acknowledged and not executed."""

    async def execute(self: Any, write: Any, rows: Any) -> list[Any]:
        if len(rows) == 1:
            return list(await old(self, write, rows))
        return [*await old(self, write, rows[:-1]), True]

    old = replace(_Database, "_execute", execute)


@bug
def answer_of_another(replace: Replace) -> None:
    """The callers of a batch receive each other's answers."""

    async def commit(*arguments: Any) -> list[Any]:
        return list(reversed(await old(*arguments)))

    old = replace(_Database, "_commit", commit)


@bug
def cancelled_caller_drops_another(replace: Replace) -> None:
    """A cancelled caller in a batch removes the row of another one, which is acknowledged."""

    def next_batch(self: Any, statement: Any) -> list[Any]:
        waiting = len(self._turns[statement])
        batch: list[Any] = old(self, statement)
        if batch and len(batch) < waiting and statement not in self._turns:
            batch.pop().done.set_result(True)
        return batch

    old = replace(_GroupCommit, "_next_batch", next_batch)


@bug
def forgotten_caller(replace: Replace) -> None:
    """The last caller of a batch is never answered."""

    async def settle(self: Any, statement: Any, batch: list[Any]) -> None:
        if len(batch) > 1:
            batch = [*batch[:-1], batch[-1]._replace(done=self._loop.create_future())]
        await old(self, statement, batch)

    old = replace(_GroupCommit, "_settle", settle)


@bug
def answer_of_a_cancelled_caller(replace: Replace) -> None:
    """If a caller of a batch is cancelled, the next one receives its answer."""

    async def settle(self: Any, statement: Any, batch: list[Any]) -> None:
        answers = [self._loop.create_future() for _ in batch]
        await old(
            self, statement, [w._replace(done=a) for w, a in zip(batch, answers, strict=True)]
        )
        waiting = [waiting.done for waiting in batch if not waiting.done.done()]
        for done, answer in zip(waiting, answers, strict=False):
            error = answer.exception()
            if error is None:
                done.set_result(answer.result())
            else:
                done.set_exception(error)

    old = replace(_GroupCommit, "_settle", settle)
