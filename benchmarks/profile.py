"""Where the time of one write goes: `python -m benchmarks.profile`, from the repository's root.

Stamps are taken by wrapping the store's own functions, so that the figures are those of the
code as it is. Each line is the median over many writes of 1 KB, one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

from workflow_store import TaskStatus, WorkflowExecutionState, WorkflowStepState, open_store
from workflow_store.sql import driver, group_commit, rows
from workflow_store.sql.dialects.postgresql import dialect as postgresql_dialect
from workflow_store.sql.dialects.sqlite import dialect as sqlite_dialect

from .servers import Servers
from .values import KILOBYTE, Values

WRITES = 3_000
STAGES = (
    ("make the row", "called", "row made"),
    ("begin a transaction", "row made", "lane"),
    ("borrow a connection", "lane", "driver"),
    ("wake the driver's thread", "driver", "thread"),
    ("the statement and its commit", "thread", "done"),
    ("wake the event loop", "done", "driver returned"),
    ("give the connection back", "driver returned", "given back"),
    ("wake the caller", "given back", "returned"),
    ("all", "called", "returned"),
)

stamps: dict[str, float] = {}


def _stamp(name: str) -> None:
    stamps[name] = time.perf_counter()


def _around(owner: Any, name: str, before: str | None, after: str | None) -> None:
    """Have a coroutine function or a function leave stamps."""
    original: Callable[..., Any] = getattr(owner, name)

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if before:
            _stamp(before)
        try:
            return await original(*args, **kwargs)
        finally:
            if after:
                _stamp(after)

    def called(*args: Any, **kwargs: Any) -> Any:
        if before:
            _stamp(before)
        try:
            return original(*args, **kwargs)
        finally:
            if after:
                _stamp(after)

    setattr(owner, name, awaited if asyncio.iscoroutinefunction(original) else called)


def _in_thread(original: Callable[..., Any]) -> Callable[..., Any]:
    async def in_its_thread(connection: Any, run: Callable[[Any], Any]) -> Any:
        def stamped(raw: Any) -> Any:
            _stamp("thread")
            try:
                return run(raw)
            finally:
                _stamp("done")

        return await original(connection, stamped)

    return in_its_thread


async def _profile(url: str) -> dict[str, float]:
    values = Values(KILOBYTE, distinct=4096)
    found: dict[str, list[float]] = {}
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
            stamps.clear()
            _stamp("called")
            await store.upsert_step("run", step)
            _stamp("returned")
            # A driver without a thread of its own is awaited all the time.
            stamps.setdefault("thread", stamps["driver"])
            stamps.setdefault("done", stamps["driver returned"])
            for stage, begins, ends in STAGES:
                found.setdefault(stage, []).append(stamps[ends] - stamps[begins])
    return {stage: median(times[WRITES // 10 :]) * 1e6 for stage, times in found.items()}


async def _main(servers: Servers) -> None:
    _around(rows, "step_row", None, "row made")
    _around(group_commit.GroupCommit, "_settle", "lane", None)
    _around(driver.Driver, "_on_connection", None, "given back")
    for dialect in (sqlite_dialect.SQLITE, postgresql_dialect.POSTGRESQL):
        _around(dialect, "execute", "driver", "driver returned")
    sqlite_dialect._in_its_thread = _in_thread(sqlite_dialect._in_its_thread)  # type: ignore[assignment] # noqa: SLF001
    file = await servers.sqlite_file("profile", our_tables=True)
    server = await servers.postgres_database("profile", our_tables=True)
    profiles = [await _profile(f"sqlite:///{file}"), await _profile(server)]
    print("| microseconds | SQLite FULL | PostgreSQL |\n| --- | ---: | ---: |")
    for stage, _, _ in STAGES:
        print(f"| {stage} | " + " | ".join(f"{profile[stage]:.0f}" for profile in profiles) + " |")


if __name__ == "__main__":
    with Servers() as servers:
        asyncio.run(_main(servers))
