"""Group commit: what waits while one transaction commits goes out together in the next.

A commit costs about the same for one row as for many, so that under load the rows share it.
Nothing is ever held back for company: where nothing is under way, a write starts at once,
alone. This module knows statements, rows and futures, not what they are about.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ["GroupCommit"]

S = TypeVar("S", bound=Hashable)
Row = Sequence[Any]

_LOG = logging.getLogger(__name__)

MAX_ROWS = 500
"""Rows of a transaction at most: beyond some hundred, a commit costs them nothing."""

MAX_BYTES = 4 * 1024 * 1024
"""Payload of a transaction at most, but for a single row that is larger."""

MAX_WAITING = 2_000
"""Writes that wait with their rows at most; beyond, calls wait before they make theirs."""


class _Waiting(NamedTuple):
    key: Hashable
    row: Row
    size: int
    done: asyncio.Future[Any]
    note: Any


class GroupCommit(Generic[S]):
    """Gathers writes into transactions, one at a time.

    A transaction holds writes of one statement; statements that wait take turns. Of two
    writes to one key, the later one is written, at the place of the earlier.

    It belongs to the event loop in which it is made.

    Args:
        commit: writes rows of different keys with a statement in one transaction, and tells
            after its commit for each row what its caller is to get. It is also given the notes
            of the writes that these are. What it raises is safe to be logged.
        fails_alone: whether an error may be one row's fault; the rows of its transaction
            are then tried one by one.
    """

    def __init__(
        self,
        commit: Callable[[S, list[Row], list[Any]], Awaitable[list[Any]]],
        *,
        fails_alone: Callable[[Exception], bool],
    ) -> None:
        # Asked once: CPython 3.11 makes a system call of it.
        self._loop = asyncio.get_running_loop()
        self._commit = commit
        self._fails_alone = fails_alone
        self._turns: dict[S, deque[_Waiting]] = {}
        self._lane: asyncio.Task[None] | None = None
        self.room = asyncio.Semaphore(MAX_WAITING)
        """To be held around `write`, and around the making of its row."""

    def write(
        self, statement: S, key: Hashable, row: Row, size: int, note: Any = None
    ) -> asyncio.Future[Any]:
        """Have a row written; after its commit, the future has what the commit gave for it.

        Args:
            statement: how it is written.
            key: what identifies the row among those of the statement.
            row: the row.
            size: its payload, in characters.
            note: what `commit` is to know of this write.
        """
        done: asyncio.Future[Any] = self._loop.create_future()
        self._turns.setdefault(statement, deque()).append(_Waiting(key, row, size, done, note))
        if self._lane is None:
            # What the first caller keeps in its context is not that of the others.
            self._lane = self._loop.create_task(
                self._run(), name="workflow_store.group_commit", context=Context()
            )
        return done

    async def drain(self) -> None:
        """Wait until everything that was written before has been settled."""
        while self._lane is not None:
            await asyncio.wait([self._lane])

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._turns:
                statement = next(iter(self._turns))
                batch = self._next_batch(statement)
                await self._settle(statement, batch)
        finally:
            # Left early only when the event loop shuts down: nobody may wait for ever.
            for waiting in (*batch, *(w for turn in self._turns.values() for w in turn)):
                waiting.done.cancel()
            self._turns.clear()
            self._lane = None

    def _next_batch(self, statement: S) -> list[_Waiting]:
        """Take what goes out next; what is left takes its turn after the others."""
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
        rows = {waiting.key: waiting.row for waiting in batch}  # first place, last row
        try:
            notes = [waiting.note for waiting in batch]
            found = await self._commit(statement, list(rows.values()), notes)
        except Exception as error:
            if len(batch) > 1 and self._fails_alone(error):
                _LOG.warning(
                    "%d writes were refused together and are tried one by one: %s",
                    len(batch), error,
                )  # fmt: skip
                for waiting in batch:
                    await self._settle(statement, [waiting])
                return
            unheard = sum(waiting.done.cancelled() for waiting in batch)
            if unheard:
                _LOG.warning(
                    "%d of %d writes failed after their callers were cancelled: %s",
                    unheard, len(batch), error,
                )  # fmt: skip
            for waiting in batch:
                if not waiting.done.done():
                    # Each caller raises an exception, and a traceback, of its own.
                    own = copy.copy(error)
                    own.__cause__ = error.__cause__
                    waiting.done.set_exception(own)
            return
        places = dict(zip(rows, found, strict=True))
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_result(places[waiting.key])
