"""Two processes share the runs of one database. One is killed, the other takes over.

Each replica claims runs, drives them and renews its claims. Replica one is killed with SIGKILL
while it drives runs. Once their leases have expired, replica two takes them over, skips the
committed steps, and does the others.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import own_database
from own_database import Place
from replica import LEASE_S
from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    RunSnapshot,
    SqlWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
)

RUNS = [f"run-{number}" for number in range(1, 7)]
STEPS = [f"step-{number}" for number in range(1, 6)]
POLL_S = 0.02
PATIENCE_S = 300.0

Process = subprocess.Popen[bytes]


class Note(NamedTuple):
    """A line of the journal."""

    replica: str
    what: str
    run_task_id: str
    token: int
    step_id: str


class Journal:
    """The actions of the replicas, recorded by the replicas and not by the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def notes(self, *what: str, replica: str = "", run: str = "") -> list[Note]:
        # The last line may still be being written.
        lines = self.path.read_text().rpartition("\n")[0].splitlines()
        fields = [line.split() for line in lines]
        notes = [
            Note(name, did, run_id, int(token), step) for name, did, run_id, token, step in fields
        ]
        return [
            note
            for note in notes
            if note.what in what and replica in {"", note.replica} and run in {"", note.run_task_id}
        ]


@contextmanager
def started_replica(name: str, place: Place, journal: Journal) -> Iterator[Process]:
    """Start a replica, and kill it at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("replica.py"), name, journal.path],
        env=place.environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def show(place: Place) -> bool:
    """Share runs between two replicas, kill one, and return whether all checks hold."""
    journal = Journal(place.folder / "journal")
    print(
        f"Replicas one and two share {len(RUNS)} runs of {len(STEPS)} steps; "
        f"a lease lasts {LEASE_S:g} seconds.\n"
    )
    async with SqlWorkflowStore(place.url, schema=place.schema, migrate=True) as store:
        for run_task_id in RUNS:
            await create(store, run_task_id)
        with (
            started_replica("one", place, journal) as one,
            started_replica("two", place, journal) as two,
        ):
            await until_amid_runs(journal, one)
            one.kill()
            one.wait()
            orphans = held_by_one(journal)
            print(f"Replica one {end_of(one)} while driving {names_of(orphans)}.")
            await asyncio.to_thread(two.wait, PATIENCE_S)
            left = {note.run_task_id for note in orphans}
            taken = journal.notes("took-over", replica="two")
            taken = [note for note in taken if note.run_task_id in left]
            print(f"Replica two took over {names_of(taken)} and {end_of(two)}.\n")

        refused = [await late_write_is_refused(store, note) for note in orphans]
        snapshots = [await store.load_run(run_task_id) for run_task_id in RUNS]
        runs = [snapshot for snapshot in snapshots if snapshot is not None]
        free = not await store.claim_abandoned_runs(owner="anybody") and all(
            [await is_free(store, run_task_id) for run_task_id in RUNS]
        )

    print_runs(runs, journal)
    later = {note.run_task_id: note.token for note in taken}
    return print_checks(
        {
            "replica one was killed with SIGKILL": one.returncode == -signal.SIGKILL,
            "replica two took over each of its runs with a greater token": (
                bool(orphans)
                and all(later.get(note.run_task_id, 0) > note.token for note in orphans)
            ),
            f"all {len(RUNS)} runs are complete": (
                len(runs) == len(RUNS) and all(is_complete(snapshot) for snapshot in runs)
            ),
            "no step was committed twice": committed_once(runs, journal),
            "a late write with a claim of replica one is refused": bool(refused) and all(refused),
            "no claim remains": free,
        }
    )


async def create(store: ResumableWorkflowStore, run_task_id: str) -> None:
    run = WorkflowExecutionState(
        run_task_id=run_task_id,
        agent_id="demo",
        thread_id="demo",
        user_id="demo",
        definition={"steps": STEPS},
        context={"done": 0},
    )
    await store.create_run(run)
    for step_id in STEPS:
        await store.upsert_step(run_task_id, WorkflowStepState(step_id=step_id))


async def until_amid_runs(journal: Journal, one: Process) -> None:
    """Wait until replica one works on a step of each of its runs, but on no last step."""
    async with asyncio.timeout(PATIENCE_S):
        while one.poll() is None:
            held = [
                journal.notes("started", "committed", run=note.run_task_id)
                for note in held_by_one(journal)
            ]
            committed = [[note.what for note in run].count("committed") for run in held]
            working = all(run and run[-1].what == "started" for run in held)
            if working and 2 <= max(committed, default=0) <= len(STEPS) - 2:
                return
            await asyncio.sleep(POLL_S)


def held_by_one(journal: Journal) -> list[Note]:
    """Return the claims that replica one holds."""
    ended = {note.token for note in journal.notes("released", "lost", replica="one")}
    claims = journal.notes("claimed", "took-over", replica="one")
    return [note for note in claims if note.token not in ended]


def names_of(notes: Sequence[Note]) -> str:
    return ", ".join(sorted(note.run_task_id for note in notes)) or "nothing"


async def late_write_is_refused(store: ResumableWorkflowStore, lost: Note) -> bool:
    """Write like a process that was paused and does not know that it lost its claim."""
    claim = RunClaim(lost.run_task_id, lost.replica, lost.token, LEASE_S, datetime.now(UTC))
    late = WorkflowStepState(step_id=STEPS[-1], status=TaskStatus.FAILED)
    try:
        await store.fenced(claim).commit_step(lost.run_task_id, late, {"done": 0})
    except ClaimLostError:
        return True
    return False


async def is_free(store: ResumableWorkflowStore, run_task_id: str) -> bool:
    claim = await store.claim_run(run_task_id, owner="anybody")
    if claim is None:
        return False
    await store.release_claim(claim)
    return True


def is_complete(snapshot: RunSnapshot) -> bool:
    return (
        [step.step_id for step in snapshot.steps] == STEPS
        and all(step.status is TaskStatus.COMPLETED for step in snapshot.steps)
        and snapshot.run.context == {"done": len(STEPS)}
    )


def committed_once(runs: Sequence[RunSnapshot], journal: Journal) -> bool:
    """Compare the store with the journal, which may lack the last action before the kill."""
    stored = {
        (snapshot.run.run_task_id, step.step_id): (step.result["replica"], step.result["token"])
        for snapshot in runs
        for step in snapshot.steps
        if step.result is not None
    }
    noted = journal.notes("committed")
    steps = [(note.run_task_id, note.step_id) for note in noted]
    return (
        len(stored) == len(RUNS) * len(STEPS)
        and len(set(steps)) == len(steps)
        and all(
            stored[step] == (note.replica, note.token)
            for step, note in zip(steps, noted, strict=True)
        )
    )


def end_of(process: Process) -> str:
    if process.returncode == -signal.SIGKILL:
        return "was killed with SIGKILL"
    return f"ended with exit code {process.returncode}"


def print_runs(runs: Sequence[RunSnapshot], journal: Journal) -> None:
    """Print how many steps of each run a replica committed, and with which tokens."""
    print(f"{'run':<10}{'by one':<20}by two")
    for snapshot in runs:
        cells = []
        for replica in ("one", "two"):
            results = [step.result for step in snapshot.steps if step.result is not None]
            tokens = [result["token"] for result in results if result["replica"] == replica]
            token = ", ".join(map(str, sorted(set(tokens))))
            cells.append(f"{len(tokens)} steps, token {token}" if tokens else "-")
        print(f"{snapshot.run.run_task_id:<10}{cells[0]:<20}{cells[1]}")
    starts = [(note.run_task_id, note.step_id) for note in journal.notes("started")]
    print(f"\nSteps repeated, since they were not committed: {len(starts) - len(set(starts))}")
    lost = journal.notes("lost", replica="two")
    print(f"Claims that replica two lost, because no renewal succeeded: {len(lost)}\n")


def print_checks(checks: dict[str, bool]) -> bool:
    for check, holds in checks.items():
        print(f"{'ok' if holds else 'FAILED':<8}{check}")
    return all(checks.values())


if __name__ == "__main__":
    sys.exit(own_database.run(show, name="two_replicas", about="Share runs between two processes."))
