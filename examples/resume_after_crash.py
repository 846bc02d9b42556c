"""Kills a workflow half-way with SIGKILL and resumes it in a new process.

The first process drives `workflows/stdlib_report.json` and is killed while steps are running.
The second one loads the run from the store and completes it. A third one drives the same
workflow without a crash, to compare the reports.

Every process writes each step that it starts to a journal outside of the store, which therefore
reveals a repeated step whatever the store says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from workflow_store import (
    JsonValue,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    open_store,
)

HERE = Path(__file__).parent
DEFINITION = json.loads((HERE / "workflows/stdlib_report.json").read_text())
STEPS = len(DEFINITION["steps"])
POLL_S = 0.02

Process = subprocess.Popen[bytes]
Steps = dict[str, WorkflowStepState]
Starts = Counter[str]
"""How often each step was started."""


@contextmanager
def process_that_drives(run_task_id: str, url: str, journal: Path) -> Iterator[Process]:
    """Start a process, and kill it at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, HERE / "drive_run.py", run_task_id, journal],
        env={**os.environ, "WORKFLOW_STORE_URL": url},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Run:
    """A run of the workflow, observed from outside the processes that drive it."""

    def __init__(self, store: WorkflowStore, url: str, folder: str) -> None:
        self._store = store
        self._url = url
        self._id = f"demo-{uuid4()}"
        self._journal = Path(folder, self._id)
        self._journal.touch()

    @asynccontextmanager
    async def created(self) -> AsyncIterator[None]:
        """Create the run, and delete it at the end."""
        state = WorkflowExecutionState(
            run_task_id=self._id,
            agent_id="demo",
            thread_id="demo",
            user_id="demo",
            definition=DEFINITION,
        )
        await self._store.create_run(state)
        try:
            yield
        finally:
            await self._store.delete_run(self._id)

    async def drive(self, *, kill_after: int = STEPS + 1) -> Process:
        """Drive the run in a new process. Kill it once `kill_after` steps are completed."""
        with process_that_drives(self._id, self._url, self._journal) as process:
            while process.poll() is None:
                steps = await self.steps()
                if len(completed(steps)) >= kill_after and under_way(steps):
                    break
                await self._answer(steps)
                await asyncio.sleep(POLL_S)
        return process

    async def _answer(self, steps: Steps) -> None:
        """Answer as the outside party that a step waits for."""
        for step in steps.values():
            if step.status is TaskStatus.INPUT_REQUIRED:
                step.status = TaskStatus.COMPLETED
                step.completed_at = datetime.now(UTC)
                step.result = {"packages": 8}
                await self._store.upsert_step(self._id, step)
                print(f"Step {step.step_id} asked for input and received {step.result}.")

    async def steps(self) -> Steps:
        return {step.step_id: step for step in await self._store.list_steps(self._id)}

    def starts(self, process: Process) -> Starts:
        """Count the starts of each step by a process, from the journal."""
        lines = [line.split() for line in self._journal.read_text().splitlines()]
        return Counter(step_id for pid, step_id in lines if int(pid) == process.pid)


async def show(url: str, folder: str, kill_after: int) -> bool:
    """Crash and resume one run, complete another, and return whether all checks hold."""
    async with open_store(url, migrate=True) as store:
        crashed, unharmed = Run(store, url, folder), Run(store, url, folder)
        async with crashed.created(), unharmed.created():
            print(f"A run of {STEPS} steps, killed once {kill_after} are completed.\n")
            first = await crashed.drive(kill_after=kill_after)
            before = await crashed.steps()
            print(f"Process {first.pid} started the run and {end_of(first)}.")

            second = await crashed.drive()
            after = await crashed.steps()
            print(f"Process {second.pid} resumed the run and {end_of(second)}.")

            third = await unharmed.drive()
            expected = await unharmed.steps()
            print(f"Process {third.pid} drove a run without a crash and {end_of(third)}.\n")

    begun, begun_again = crashed.starts(first), crashed.starts(second)
    print_steps(before, begun, begun_again)
    print(f"\n{report_of(after)}\n")

    done = completed(before)
    # A missing start counts as well: such a journal would prove nothing.
    repeated = [name for name in done if begun[name] + begun_again[name] != 1]
    return print_checks(
        {
            "the first process was killed with SIGKILL": first.returncode == -signal.SIGKILL,
            f"{len(repeated)} steps repeated": not repeated,
            "the steps completed before the kill are unchanged": done.items() <= after.items(),
            f"all {STEPS} steps completed": len(completed(after)) == STEPS,
            "report identical to the run without a crash": (
                report_of(after) is not None and report_of(after) == report_of(expected)
            ),
        }
    )


def completed(steps: Steps) -> Steps:
    return {name: step for name, step in steps.items() if step.status is TaskStatus.COMPLETED}


def under_way(steps: Steps) -> Steps:
    begun = (TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED)
    return {name: step for name, step in steps.items() if step.status in begun}


def report_of(steps: Steps) -> JsonValue:
    return steps["report"].result if "report" in steps else None


def end_of(process: Process) -> str:
    if process.returncode == -signal.SIGKILL:
        return "was killed with SIGKILL"
    return f"ended with exit code {process.returncode}"


def fate(step: WorkflowStepState, begun: int, begun_again: int) -> str:
    """Return what the resume did with a step that the first process left in this state."""
    if step.status is TaskStatus.INPUT_REQUIRED:
        return "answered"
    if not begun_again:
        return "skipped"
    if step.status is TaskStatus.COMPLETED:
        return "repeated"
    return "ran again" if begun else "ran"


def print_steps(before: Steps, begun: Starts, begun_again: Starts) -> None:
    fates = {name: fate(before[name], begun[name], begun_again[name]) for name in before}
    print(f"{'step':<16}{'when killed':<18}then")
    for name, step in before.items():
        print(f"{name:<16}{step.status:<18}{fates[name]}")

    again = list(fates.values()).count("ran again")
    print(f"\nSteps completed before the kill: {len(completed(before))}")
    print(f"Steps running at the kill, without a result, so run again: {again}")


def print_checks(checks: dict[str, bool]) -> bool:
    for check, holds in checks.items():
        print(f"{'ok' if holds else 'FAILED':<8}{check}")
    return all(checks.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Crash a workflow and resume it.")
    parser.add_argument("--url", help="the database; by default a temporary SQLite file")
    parser.add_argument(
        "--kill-after",
        type=int,
        choices=range(1, STEPS - 1),  # the last step may end between two polls
        default=9,
        metavar="STEPS",
        help=f"kill after this many completed steps: 1 to {STEPS - 2}, by default 9",
    )
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # run the cleanup
    with tempfile.TemporaryDirectory(prefix="resume_after_crash_") as folder:
        url = arguments.url or f"sqlite:///{folder}/store.db"
        return 0 if asyncio.run(show(url, folder, arguments.kill_after)) else 1


if __name__ == "__main__":
    sys.exit(main())
