"""Where the time of one write goes: `python -m benchmarks.profile`, from the repository's root.

Wraps functions of the store to take timestamps. Each line is the median over many writes of
1 KB, one after the other.
"""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from workflow_store import TaskStatus, WorkflowExecutionState, WorkflowStepState, open_store

from .report import table
from .servers import DATABASES, Servers
from .values import KILOBYTE, Values

WRITES = 3_000
SQL = "workflow_store.sql"
# The places where timestamps are taken: a function, and their names before and after it.
HOOKS = (
    (f"{SQL}.rows:step_row", None, "row"),
    (f"{SQL}.group_commit:GroupCommit._settle", "batch", None),
    (f"{SQL}.database:Database._on_connection", None, "checked in"),
    (f"{SQL}.dialects.sqlite.dialect:SQLITE.execute", "driver", "driver returned"),
    (f"{SQL}.dialects.postgresql.dialect:POSTGRESQL.execute", "driver", "driver returned"),
)
IN_THREAD = f"{SQL}.dialects.sqlite.dialect:_in_its_thread"
STAGES = (
    ("build the row", "called", "row"),
    ("start a batch", "row", "batch"),
    ("check out a connection", "batch", "driver"),
    ("wake the driver's thread", "driver", "thread"),
    ("execute the statement and commit", "thread", "thread returned"),
    ("wake the event loop", "thread returned", "driver returned"),
    ("return the connection", "driver returned", "checked in"),
    ("wake the caller", "checked in", "returned"),
    ("total", "called", "returned"),
)

timestamps: dict[str, float] = {}


def _take(name: str | None) -> None:
    if name:
        timestamps[name] = time.perf_counter()


def _replace(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, _, name = target.replace(":", ".").rpartition(".")
    original = pkgutil.resolve_name(target)
    setattr(pkgutil.resolve_name(owner), name, wrap(original))


def _timed(before: str | None, after: str | None) -> Callable[..., Callable[..., Any]]:
    """Return a wrapper that takes timestamps around a function or a coroutine function."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            _take(before)
            try:
                return await original(*args, **kwargs)
            finally:
                _take(after)

        def called(*args: Any, **kwargs: Any) -> Any:
            _take(before)
            try:
                return original(*args, **kwargs)
            finally:
                _take(after)

        return awaited if inspect.iscoroutinefunction(original) else called

    return wrap


def _timed_in_thread(original: Callable[..., Any]) -> Callable[..., Any]:
    async def awaited(connection: Any, run: Callable[[Any], Any]) -> Any:
        return await original(connection, _timed("thread", "thread returned")(run))

    return awaited


async def _profile(url: str) -> dict[str, float]:
    values = Values(KILOBYTE, distinct=4096)
    latencies_s: dict[str, list[float]] = {stage: [] for stage, _, _ in STAGES}
    async with open_store(url) as store:
        run = WorkflowExecutionState(
            run_task_id="run", agent_id="a", thread_id="t", user_id="u", definition={}
        )
        await store.create_run(run)
        for number in range(WRITES):
            now = datetime.now(UTC)
            step = WorkflowStepState(
                step_id=f"step-{number}", status=TaskStatus.COMPLETED, result=values.next(),
                started_at=now, completed_at=now,
            )  # fmt: skip
            timestamps.clear()
            _take("called")
            await store.upsert_step("run", step)
            _take("returned")
            # asyncpg has no thread: all its time is the statement's.
            timestamps.setdefault("thread", timestamps["driver"])
            timestamps.setdefault("thread returned", timestamps["driver returned"])
            for stage, before, after in STAGES:
                latencies_s[stage].append(timestamps[after] - timestamps[before])
    warm_up = WRITES // 10
    return {stage: median(times[warm_up:]) * 1e6 for stage, times in latencies_s.items()}


async def _main(servers: Servers) -> None:
    for target, before, after in HOOKS:
        _replace(target, _timed(before, after))
    _replace(IN_THREAD, _timed_in_thread)
    profiles = [await _profile(await servers.url(name, "profile")) for name in DATABASES]
    rows = [(stage, *(f"{profile[stage]:.0f}" for profile in profiles)) for stage, _, _ in STAGES]
    print(table(("microseconds", "SQLite FULL", "PostgreSQL"), rows, right=(1, 2)))


if __name__ == "__main__":
    with Servers() as servers_:
        asyncio.run(_main(servers_))
