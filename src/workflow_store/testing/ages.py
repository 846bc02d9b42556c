"""Runs of known ages for tests, and times that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from ..state import WorkflowExecutionState
from ..store import ResumableWorkflowStore

__all__ = ["BAD_TIMES", "ELSEWHERE", "MICROSECOND", "START", "create", "hour"]

START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ELSEWHERE = timezone(timedelta(hours=5, minutes=45))

BAD_TIMES: tuple[Any, ...] = (
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(1, 1, 1, tzinfo=ELSEWHERE),
    date(2026, 1, 1),
    "2026-01-01T00:00:00Z",
    0,
)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


async def create(store: ResumableWorkflowStore, runs: Iterable[WorkflowExecutionState]) -> None:
    await asyncio.gather(*(store.create_run(run) for run in runs))
