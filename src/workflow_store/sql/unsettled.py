"""Attempts that may still take effect although their calls have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from ..errors import StoreUnavailableError

__all__ = ["Unsettled", "unsettled_error"]


class Unsettled:
    """The runs that an attempt of an earlier call may still change.

    A call is cancelled, or fails with an unknown outcome, while its transaction may still
    commit. A later call that went on would be overtaken: what it read or wrote would be undone
    by an earlier call.

    False while there is no such attempt.
    """

    def __init__(self) -> None:
        self._runs: dict[asyncio.Future[Any], frozenset[str] | None] = {}
        self._doubtful: set[asyncio.Future[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(
        self,
        over: asyncio.Future[Any],
        runs: Iterable[str] | None,
        *,
        doubtful: bool = False,
    ) -> None:
        """Add an attempt.

        Args:
            over: done when the attempt can no longer take effect.
            runs: the runs that it may change; None for any.
            doubtful: whether the server has not yet confirmed the end of its session. Such an
                attempt also stops the calls that had begun before its own call ended.
        """
        self._runs[over] = None if runs is None else frozenset(runs)
        if doubtful:
            self._doubtful.add(over)
        over.add_done_callback(self._discard)

    def blocks(self, run_task_id: str) -> bool:
        """Return whether a doubtful attempt may change a run."""
        return bool(self._of([run_task_id], self._doubtful))

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
        while pending := self._of(runs, self._doubtful if doubtful else self._runs):
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise unsettled_error(runs)
            await asyncio.wait(pending, timeout=left_s)

    async def close(self, within_s: float) -> None:
        """Stop waiting for doubtful attempts, after this many seconds."""
        if self._doubtful:
            await asyncio.wait(set(self._doubtful), timeout=within_s)
            for over in self._doubtful:
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
            if (changed := self._runs[over]) is None or not changed.isdisjoint(runs)
        ]

    def _discard(self, over: asyncio.Future[Any]) -> None:
        del self._runs[over]
        self._doubtful.discard(over)


def unsettled_error(runs: Collection[str] | None) -> StoreUnavailableError:
    """Return the error of a call that an earlier attempt might overtake."""
    subject = "a run" if runs is None else " and ".join(f"run {run!r}" for run in runs)
    return StoreUnavailableError(
        f"An earlier write of {subject} may still be executed: the server has not confirmed "
        "that its session ended. Try again later; check the server for stopped processes."
    )
