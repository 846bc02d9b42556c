"""Attempts that may still take effect although their calls have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import Context
from typing import Any, TypeAlias

from ..errors import StoreUnavailableError
from .dialects import UnknownOutcomeError

__all__ = ["Doubt", "Unsettled"]

_LOG = logging.getLogger("workflow_store.store")

Doubt: TypeAlias = tuple[UnknownOutcomeError, Collection[str] | None]
"""An attempt of unknown outcome and the runs that it may change; None for any."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 1.0
"""Between two looks at a session that does not end."""

_LOOKS_BEFORE_WARNING = 8
"""After one to two seconds."""


class Unsettled:
    """The runs that an attempt of an earlier call may still change.

    A call is cancelled, or fails with an unknown outcome, while its transaction may still
    commit. A later call that went on would be overtaken: what it read or wrote would be undone
    by an earlier call.

    Args:
        end_session: terminates a session, and returns whether it no longer exists and its
            effect is durable.

    Attributes:
        attempts: the runs of each attempt; usually empty.
    """

    def __init__(self, end_session: Callable[[Any], Awaitable[bool]]) -> None:
        self.attempts: dict[asyncio.Future[Any], frozenset[str] | None] = {}
        self._end_session = end_session
        self._doubts: dict[asyncio.Future[Any], UnknownOutcomeError] = {}

    def add(self, over: asyncio.Future[Any], runs: Iterable[str] | None) -> None:
        """Add an attempt of a cancelled call, or another run to an attempt.

        Args:
            over: done when the attempt can no longer take effect.
            runs: the runs that it may change; None for any.
        """
        if over not in self.attempts:
            self.attempts[over] = frozenset()
            over.add_done_callback(self._discard)
        known = self.attempts[over]
        self.attempts[over] = None if runs is None or known is None else known.union(runs)

    def doubt(
        self, unknown: UnknownOutcomeError, runs: Iterable[str] | None
    ) -> asyncio.Future[None]:
        """Add an attempt of unknown outcome, and terminate its session.

        Later calls on the runs wait, and so do batches and transactions that have not begun.

        Returns:
            A future that is done when the session no longer exists and its effect is durable.
        """
        # An empty context: that of one caller does not apply to all runs of a batch.
        over = asyncio.get_running_loop().create_task(self._end(unknown.session), context=Context())
        self._doubts[over] = unknown
        self.add(over, runs)
        return over

    async def _end(self, session: Any) -> None:
        pause_s, looks = _FIRST_PAUSE_S, 0
        while True:
            try:
                if await self._end_session(session):
                    return
                reason = "it still exists"
            except Exception as error:
                reason = getattr(error, "sqlstate", None) or type(error).__name__
            looks += 1
            level = logging.WARNING if looks == _LOOKS_BEFORE_WARNING else logging.DEBUG
            _LOG.log(level, "a write may still be executed: its session did not end (%s)", reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

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

    async def close(self, within_s: float) -> list[Doubt]:
        """Stop waiting for doubtful attempts, after this many seconds, and return the rest."""
        if self._doubts:
            await asyncio.wait(set(self._doubts), timeout=within_s)
        rest: list[Doubt] = [(doubt, self.attempts[over]) for over, doubt in self._doubts.items()]
        for over in self._doubts:
            over.cancel()
        return rest

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
        advice = "Try again later."
        if not self._doubts.keys().isdisjoint(pending):
            advice += " Check the server for stopped processes and the network."
        error = StoreUnavailableError(
            f"An earlier write of {subject} has not ended, and may still be executed. {advice}"
        )
        error.__cause__ = TimeoutError()  # not that of the earlier call, whose outcome is not this
        return error

    def _discard(self, over: asyncio.Future[Any]) -> None:
        del self.attempts[over]
        self._doubts.pop(over, None)
