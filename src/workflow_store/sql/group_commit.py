"""Group commit: writes that arrive during a commit share the next transaction.

A commit costs about the same for one row as for many, so that rows share it under load. No
write is delayed to wait for others: if the lane is idle, a write starts at once, alone. This
module handles statements, rows and futures, whatever their meaning.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

__all__ = ["GroupCommit", "Row"]

S = TypeVar("S", bound=Hashable)
Row: TypeAlias = Sequence[Any]
"""The values of a statement's parameters, or of a row that was read."""

_LOG = logging.getLogger("workflow_store.commit")

MAX_ROWS = 500
"""Maximum rows of a transaction: beyond some hundred, sharing a commit gains nothing."""

MAX_BYTES = 4 * 1024 * 1024
"""Maximum payload of a transaction, except for a single larger row."""

MAX_WAITING = 2_000
"""Maximum writes that wait with their rows; further calls wait before they build theirs."""


class _Waiting(NamedTuple):
    key: Hashable
    row: Row
    size: int
    done: asyncio.Future[Any]
    note: Any


class GroupCommit(Generic[S]):
    """Gathers writes into transactions, one at a time.

    A transaction holds writes of one statement; waiting statements take turns. Of two writes
    with one key, the later one is written, at the position of the earlier.

    An object belongs to the event loop in which it was created.

    Args:
        commit: writes rows of different keys with a statement in one transaction and returns,
            after its commit, a result for each row, which may be an error. It also receives
            the notes of the writes. Its errors are logged.
        fails_alone: returns whether one row may have caused an error; the rows of the
            transaction are then written one by one.
        succeeds_once: returns whether a second write with one key would write nothing. Of the
            writes with that key, the first then gets the result, and the others False.
    """

    def __init__(
        self,
        commit: Callable[[S, list[Row], list[Any]], Awaitable[list[Any]]],
        *,
        fails_alone: Callable[[Exception], bool],
        succeeds_once: Callable[[S], bool],
    ) -> None:
        # Looked up once: CPython 3.11 makes a system call for it.
        self._loop = asyncio.get_running_loop()
        self._commit = commit
        self._fails_alone = fails_alone
        self._succeeds_once = succeeds_once
        self._turns: dict[S, deque[_Waiting]] = {}
        self._lane: asyncio.Task[None] | None = None
        self._batch_over: asyncio.Future[None] | None = None
        self.room = asyncio.Semaphore(MAX_WAITING)
        """Acquire before building a row, release after its write."""

    def write(
        self, statement: S, key: Hashable, row: Row, size: int, note: Any = None
    ) -> asyncio.Future[Any]:
        """Queue a row and return a future of its result, set after the commit.

        Args:
            statement: writes the row.
            key: identifies the row among those of the statement.
            row: the row.
            size: its payload, in characters.
            note: passed to `commit`.
        """
        done: asyncio.Future[Any] = self._loop.create_future()
        self._turns.setdefault(statement, deque()).append(_Waiting(key, row, size, done, note))
        if self._lane is None:
            # An empty context: that of the first caller does not apply to the others.
            self._lane = self._loop.create_task(
                self._run(), name="workflow_store.group_commit", context=Context()
            )
        return done

    def batch_under_way(self) -> asyncio.Future[None] | None:
        """Return a future that is done when the batch under way is settled; None without one.

        A write whose future is cancelled is in that batch, or is never written.
        """
        if self._lane is not None and self._batch_over is None:
            self._batch_over = self._loop.create_future()
        return self._batch_over

    async def drain(self) -> None:
        """Wait until all queued writes are settled."""
        while self._lane is not None:
            await asyncio.wait([self._lane])

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._turns:
                statement = next(iter(self._turns))
                batch = self._next_batch(statement)
                await self._settle(statement, batch)
                self._end_batch()
        finally:
            # Reached early only when the event loop shuts down: no caller may wait for ever.
            for waiting in (*batch, *(w for turn in self._turns.values() for w in turn)):
                waiting.done.cancel()
            self._turns.clear()
            self._lane = None
            self._end_batch()

    def _end_batch(self) -> None:
        over, self._batch_over = self._batch_over, None
        if over is not None:
            over.set_result(None)

    def _next_batch(self, statement: S) -> list[_Waiting]:
        """Remove the next batch from the queue; the rest waits its turn after the others."""
        turn = self._turns.pop(statement)
        batch: list[_Waiting] = []
        size = 0
        while turn and len(batch) < MAX_ROWS and (not batch or size + turn[0].size <= MAX_BYTES):
            waiting = turn.popleft()
            if not waiting.done.cancelled():
                batch.append(waiting)
                size += waiting.size
        if turn:
            self._turns[statement] = turn
        return batch

    async def _settle(self, statement: S, batch: list[_Waiting]) -> None:
        if not batch:
            return
        rows = {waiting.key: waiting.row for waiting in batch}  # first position, last row
        try:
            notes = [waiting.note for waiting in batch]
            results = await self._commit(statement, list(rows.values()), notes)
        except Exception as error:
            if len(batch) > 1 and self._fails_alone(error):
                _LOG.warning(
                    "a batch of %d writes was rejected, writing them one by one: %s",
                    len(batch), error,
                )  # fmt: skip
                for waiting in batch:
                    await self._settle(statement, [waiting])
                return
            abandoned = sum(waiting.done.cancelled() for waiting in batch)
            if abandoned:
                _LOG.warning(
                    "%d of %d writes failed after their callers were cancelled: %s",
                    abandoned, len(batch), error,
                )  # fmt: skip
            results = [error] * len(rows)
        result_of = dict(zip(rows, results, strict=True))
        once = len(rows) < len(batch) and self._succeeds_once(statement)
        for waiting in batch:
            if not waiting.done.done():
                result = result_of[waiting.key]
                if isinstance(result, Exception):
                    # Each caller raises an exception with a traceback of its own.
                    exception = copy.copy(result)
                    exception.__cause__ = result.__cause__
                    waiting.done.set_exception(exception)
                else:
                    waiting.done.set_result(result)
            if once and not isinstance(result_of[waiting.key], Exception):
                result_of[waiting.key] = False
