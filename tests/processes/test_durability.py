"""Processes that are killed lose no acknowledged write and leave a database that opens."""

from __future__ import annotations

import asyncio
import random
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import TypeAlias

import pytest

from support.processes import Start, check_file, line, orphans
from support.programs.write_until_killed import content
from support.waiting import PATIENCE_S
from workflow_store import (
    SqlWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    open_store,
)

pytestmark = pytest.mark.slow


Acknowledged: TypeAlias = dict[tuple[str, str], int]
"""The last number that was acknowledged, by what was written and its key."""


def run(run_task_id: str) -> WorkflowExecutionState:
    return WorkflowExecutionState(
        run_task_id=run_task_id, agent_id="a", thread_id="t", user_id="u", definition={}
    )


async def read_acknowledgements(process: Process, until: int) -> list[str]:
    """Read some acknowledgements, kill the process, and read what it had written by then."""
    assert process.stdout is not None
    lines: list[str] = []
    while len(lines) < until:
        text = (await process.stdout.readline()).decode()
        assert text, f"the writer ended by itself after {lines[-1:]}"
        lines.append(text)
    process.kill()
    rest = (await process.stdout.read()).decode()
    await process.wait()
    assert process.returncode == -9
    return [text.strip() for text in (*lines, *rest.splitlines(keepends=True)) if "\n" in text]


def expected_step(step_id: str, number: int) -> WorkflowStepState:
    return WorkflowStepState(
        step_id=step_id,
        status=TaskStatus.COMPLETED,
        result=content(number),
        error=f"error {number}",
        wait_task_id=f"wait-{number}",
    )


async def check_acknowledged(
    store: WorkflowStore, acknowledged: dict[tuple[str, str], int]
) -> None:
    """Each task had one write under way at most: it is there whole or not at all."""
    for (what, key), number in acknowledged.items():
        match what:
            case "run":
                found = await store.get_run(key)
                assert found is not None
                assert found.definition == {"number": 0}
                assert found.agent_id == "agent-0"
                assert found.input == content(0)
                at_least = acknowledged.get(("context", key), 0)
                assert found.context in (content(at_least), content(at_least + 1))
                await check_steps(store, key, acknowledged)
            case "step":
                run_task_id, step_id = key.split("/")
                step = await store.get_step(run_task_id, step_id)
                if step_id == "again":
                    assert step in (
                        expected_step(step_id, number),
                        expected_step(step_id, number + 1),
                    )
                else:
                    assert step == expected_step(step_id, number)
            case "delete":
                found = await store.get_run(key)
                assert found is None or found.context == content(number + 1)


async def check_steps(store: WorkflowStore, name: str, acknowledged: Acknowledged) -> None:
    """The steps stand in the order in which they were awaited, and none of them is half."""
    steps = await store.list_steps(name)
    numbered = [step for step in steps if step.step_id != "again"]
    assert numbered == [
        expected_step(f"{name}-{number}", number) for number in range(1, len(numbered) + 1)
    ]
    last = max(
        (number for (what, key), number in acknowledged.items()
         if what == "step" and key.startswith(f"{name}/{name}-")),
        default=0,
    )  # fmt: skip
    assert len(numbered) - last in {0, 1}
    if len(steps) > 1:
        assert steps[1].step_id == "again"
        assert len(steps) == len(numbered) + 1


async def test_a_process_killed_while_it_writes_loses_no_acknowledged_write(
    database_url: str, start: Start
) -> None:
    """SIGKILL amid 12 writing tasks, ten times on one database: what had returned is there."""
    ever: Acknowledged = {}
    for round_ in range(10):
        process = await start("write_until_killed.py", database_url, str(round_), stderr=DEVNULL)
        async with asyncio.timeout(PATIENCE_S):
            lines = await read_acknowledgements(process, until=random.randint(1, 400))
        acknowledged: Acknowledged = {}
        for text in lines:
            what, key, number = text.split()
            acknowledged[what, key] = int(number)
        await check_file(database_url)
        async with open_store(database_url) as store:
            await check_acknowledged(store, acknowledged)
        ever |= acknowledged
    assert sum(what == "step" for what, _ in ever) > 100
    async with open_store(database_url) as store:
        await check_acknowledged(store, ever)
    assert await orphans(database_url) == []


async def test_a_process_killed_while_it_opens_a_new_file_leaves_one_that_opens(
    tmp_path: Path, start: Start
) -> None:
    """SIGKILL amid the migration: the next one to open the file finds it empty or complete."""
    for round_ in range(6):
        url = f"sqlite:///{tmp_path}/{round_}.db"
        process = await start("write_until_killed.py", url, str(round_), stderr=DEVNULL)
        assert await line(process) == f"start {round_} 0"
        await asyncio.sleep(random.uniform(0, 0.4))  # no condition: any moment will do
        process.kill()
        await process.communicate()
        async with SqlWorkflowStore(url) as store:
            await store.create_run(run("r"))
            assert await store.get_run("r") is not None
        await check_file(url)
