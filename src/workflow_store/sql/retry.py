"""Another attempt where the database asks for one, and the line that tells of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import URL

from .dialects import ErrorKind, StoreDialect
from .urls import masked

if TYPE_CHECKING:
    from .telemetry.spans import Telemetry

__all__ = ["Retries"]

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

_DELAYS_S = (0.05, 0.2, 0.8)
"""Pauses before another attempt; up to half of each is added, so that callers spread out."""

_QUIET_S = 1.0
"""For so long after a warning, more of the same kind are said at DEBUG: one outage is one."""


class Retries:
    """Tries what a database is asked for, a bounded number of times.

    Args:
        dialect: the database's dialect.
        url: the database, masked in what is logged.
        telemetry: is told of each attempt that failed.
    """

    def __init__(self, dialect: StoreDialect, url: URL, telemetry: Telemetry | None = None) -> None:
        self._dialect = dialect
        self._url = url
        self._telemetry = telemetry
        self._warned_at: dict[str, float] = {}

    async def run(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Try and, where the error is worth it, try again."""
        for number, delay_s in enumerate(_DELAYS_S, start=1):
            try:
                return await attempt()
            except Exception as error:
                diagnosis = self._dialect.classify_error(error)
                if diagnosis.kind is not ErrorKind.TRANSIENT:
                    raise
            pause_s = delay_s * (1 + random.random() / 2)  # noqa: S311 - no secret
            self._tell(diagnosis.name, number, pause_s)
            await asyncio.sleep(pause_s)
        return await attempt()

    def _tell(self, name: str, number: int, pause_s: float) -> None:
        now = time.monotonic()
        level = logging.DEBUG
        if now - self._warned_at.get(name, -_QUIET_S) >= _QUIET_S:
            self._warned_at[name] = now
            level = logging.WARNING
        if _LOG.isEnabledFor(level):
            _LOG.log(
                level,
                "%s: attempt %d of %d failed (%s), the next follows in %.2f s",
                masked(self._url), number, len(_DELAYS_S) + 1, name, pause_s,
            )  # fmt: skip
        if self._telemetry is not None:
            self._telemetry.retried(name)
