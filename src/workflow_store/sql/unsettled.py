"""Attempts that may still take effect although their calls have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from ..errors import StoreUnavailableError

__all__ = ["Unsettled"]


class Unsettled:
    """The runs that an attempt of an earlier call may still change.

    A call is cancelled, or fails with an unknown outcome, while its transaction may still
    commit. A later call that went on would be overtaken: what it read or wrote would be undone
    by an earlier call.

    Attributes:
        attempts: the runs of each attempt; usually empty.
    """

    def __init__(self) -> None:
        self.attempts: dict[asyncio.Future[Any], frozenset[str] | None] = {}
        self._doubts: dict[asyncio.Future[Any], Exception] = {}

    def add(
        self,
        over: asyncio.Future[Any],
        runs: Iterable[str] | None,
        *,
        doubt: Exception | None = None,
    ) -> None:
        """Add an attempt.

        Args:
            over: done when the attempt can no longer take effect.
            runs: the runs that it may change; None for any.
            doubt: the error of an attempt whose session the server may still execute. It also
                stops the calls that had begun before its own call ended.
        """
        self.attempts[over] = None if runs is None else frozenset(runs)
        if doubt is not None:
            self._doubts[over] = doubt
        over.add_done_callback(self._discard)

    def blocked(self, runs: Iterable[str]) -> dict[str, StoreUnavailableError]:
        """Return an error for each of the runs that a doubtful attempt may change."""
        blocked = {run: self._of([run], self._doubts) for run in runs}
        return {run: self._error([run], pending) for run, pending in blocked.items() if pending}

    async def wait(
        self, runs: Collection[str] | None, within_s: float, *, doubtful: bool = False
    ) -> None:
        """Wait until no attempt may change the runs.

        Args:
            runs: the runs; None for all.
            within_s: how long to wait.
            doubtful: whether to wait for doubtful attempts only.

        Raises:
            StoreUnavailableError: an attempt may still change one of them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while pending := self._of(runs, self._doubts if doubtful else self.attempts):
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise self._error(runs, pending)
            await asyncio.wait(pending, timeout=left_s)

    async def close(self, within_s: float) -> None:
        """Stop waiting for doubtful attempts, after this many seconds."""
        if self._doubts:
            await asyncio.wait(set(self._doubts), timeout=within_s)
            for over in self._doubts:
                over.cancel()

    def _of(
        self, runs: Collection[str] | None, attempts: Iterable[asyncio.Future[Any]]
    ) -> list[asyncio.Future[Any]]:
        pending = [over for over in attempts if not over.done()]
        if runs is None:
            return pending
        return [
            over
            for over in pending
            if (changed := self.attempts[over]) is None or not changed.isdisjoint(runs)
        ]

    def _error(
        self, runs: Collection[str] | None, pending: Iterable[asyncio.Future[Any]]
    ) -> StoreUnavailableError:
        subject = "a run" if runs is None else " and ".join(f"run {run!r}" for run in runs)
        error = StoreUnavailableError(
            f"An earlier write of {subject} may still be executed: the database has not confirmed "
            "that it ended. Try again later; check the server for stopped processes."
        )
        error.__cause__ = next(filter(None, map(self._doubts.get, pending)), None)
        return error

    def _discard(self, over: asyncio.Future[Any]) -> None:
        del self.attempts[over]
        self._doubts.pop(over, None)
