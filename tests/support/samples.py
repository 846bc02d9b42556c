"""Runs to keep, export and copy, and what a store holds as text."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from support.failures import HOSTILE
from workflow_store import (
    ResumableWorkflowStore,
    RunSnapshot,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    open_store,
)
from workflow_store.archive import to_line
from workflow_store.copying import put_run, summaries

DAY = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

HOSTILE_TEXT = "\x1b[31m\x9b31m\r\n\u202e\u200b<b>[red]'\"\\%s{0}é"


def run(run_task_id: str = "r", **fields: Any) -> WorkflowExecutionState:
    given: dict[str, Any] = {"agent_id": "a", "thread_id": "t", "user_id": "u", "definition": {}}
    given |= {"created_at": DAY, "updated_at": DAY}
    return WorkflowExecutionState(run_task_id=run_task_id, **{**given, **fields})


def step(step_id: str, **fields: Any) -> WorkflowStepState:
    return WorkflowStepState(step_id=step_id, **fields)


def snapshot(run_task_id: str, *steps: WorkflowStepState, **fields: Any) -> RunSnapshot:
    return RunSnapshot(run(run_task_id, **fields), list(steps))


def hostile() -> RunSnapshot:
    """A run with what gets lost or does harm where it is handled without care."""
    return snapshot(
        HOSTILE_TEXT,
        step("z", result={"b": 1, "a": 1.0, "big": [2**70, -0.0, 0.0, True], "\0": "\ud800"}),
        step("a", error="\0\udc00\x1b]0;x\x07", status=TaskStatus.FAILED, started_at=DAY),
        step(HOSTILE_TEXT, wait_task_id="\x7f", completed_at=DAY + MICROSECOND),
        agent_id="\x1b[2J",
        workspace_id="\u2066",
        definition={"steps": [{"id": "z"}, {"id": "a", "depends_on": ["z", "\x1b"]}]},
        input=HOSTILE,
        context=[10**400, 1e-323, "\u2028"],
        updated_at=DAY + 7 * MICROSECOND,
    )


def several(count: int, *, steps: int = 3) -> list[RunSnapshot]:
    """Runs a microsecond apart, whose steps are in no order that could be found otherwise."""
    return [
        snapshot(
            f"run-{number:05}",
            *(
                step(
                    f"s{(each * 7 + number) % steps}",
                    status=TaskStatus.COMPLETED,
                    result={"run": number, "step": each},
                    started_at=DAY + each * MICROSECOND,
                    completed_at=DAY + number * MICROSECOND,
                )
                for each in range(steps)
            ),
            created_at=DAY + number * MICROSECOND,
            updated_at=DAY + number * 3 * MICROSECOND,
        )
        for number in range(count)
    ]


async def fill(store: ResumableWorkflowStore, *snapshots: RunSnapshot) -> None:
    await asyncio.gather(*(put_run(store, each) for each in snapshots))


async def held(store: ResumableWorkflowStore) -> list[str]:
    """Return each run of a store as its line, newest first."""
    lines = []
    async for summary in summaries(store):
        loaded = await store.load_run(summary.run_task_id)
        assert loaded is not None
        lines.append(to_line(loaded))
    return lines


def filled(url: str, *snapshots: RunSnapshot) -> str:
    """Keep runs in a database; a SQLite file is made. Give its URL."""

    async def work() -> None:
        async with open_store(url) as store:
            await fill(store, *snapshots)

    asyncio.run(work())
    return url


def lines_of(url: str) -> list[str]:
    """Return each run of a database as its line, newest first."""

    async def work() -> list[str]:
        async with open_store(url) as store:
            return await held(store)

    return asyncio.run(work())


def newest_first(*snapshots: RunSnapshot) -> list[str]:
    ordered = sorted(snapshots, key=lambda each: (each.run.created_at, each.run.run_task_id))
    return [to_line(each) for each in reversed(ordered)]
