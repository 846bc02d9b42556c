"""Retries transient errors, and logs them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .dialects import ErrorKind, UnknownOutcomeError
from .urls import DatabaseUrl

if TYPE_CHECKING:
    from .telemetry.spans import Telemetry

__all__ = ["RetryPolicy"]

_T = TypeVar("_T")
_LOG = logging.getLogger("workflow_store.retry")

_DELAYS_S = (0.05, 0.2, 0.8)
"""Pauses before the next attempt. Up to half of each is added, so that callers spread out."""

_QUIET_S = 1.0
"""After a warning, retries of the same kind are logged at DEBUG for this long."""


class RetryPolicy:
    """Repeats an operation after a transient error, a bounded number of times.

    An attempt whose outcome is unknown is not repeated: another process may have read or
    replaced what it wrote.

    Args:
        database: classifies the errors and is named in the log.
    """

    def __init__(self, database: DatabaseUrl) -> None:
        self.telemetry: Telemetry | None = None
        self._database = database
        self._warned_at: dict[str, float] = {}

    async def run(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of the first attempt that succeeds, or raise the last error."""
        for number, delay_s in enumerate(_DELAYS_S, start=1):
            try:
                return await attempt()
            except UnknownOutcomeError:
                raise
            except Exception as error:
                info = self._database.dialect.classify_error(error)
                if info.kind is not ErrorKind.TRANSIENT:
                    raise
            pause_s = delay_s * (1 + random.random() / 2)  # noqa: S311 - not a secret
            self._report(info.name, number, pause_s)
            await asyncio.sleep(pause_s)
        return await attempt()

    def _report(self, name: str, number: int, pause_s: float) -> None:
        now = time.monotonic()
        level = logging.DEBUG
        if now - self._warned_at.get(name, -_QUIET_S) >= _QUIET_S:
            self._warned_at[name] = now
            level = logging.WARNING
        if _LOG.isEnabledFor(level):
            _LOG.log(
                level,
                "%s: attempt %d of %d failed (%s), retrying in %.2f s",
                self._database.name, number, len(_DELAYS_S) + 1, name, pause_s,
            )  # fmt: skip
        if self.telemetry is not None:
            self.telemetry.retried(name)
