"""One of several processes that share the runs of a database: `replica.py NAME JOURNAL`.

Works on the store of `WORKFLOW_STORE_URL` until every run is complete, and writes what it does to
the journal, which is independent of the store.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from heartbeat import kept
from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    RunSummary,
    TaskStatus,
    WorkflowStepState,
    open_store,
)

AT_ONCE = 3
LEASE_S = 5.0  # longer than a pause of a busy machine
POLL_S = 0.1
WORK_S = 0.5


class Replica:
    """Claims runs and drives them, up to `AT_ONCE` new ones concurrently.

    Args:
        store: the store of the runs.
        name: the owner of the claims; unique among the processes.
        journal: the file to which it writes what it does.
    """

    def __init__(self, store: ResumableWorkflowStore, name: str, journal: Path) -> None:
        self._store = store
        self._name = name
        self._journal = journal
        self._driving: set[RunClaim] = set()

    async def work(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                runs = (await self._store.list_runs()).runs
                if all(is_complete(run) for run in runs):
                    return
                for claim in await self._claims(runs):
                    self._driving.add(claim)
                    group.create_task(self._drive(claim))
                await asyncio.sleep(POLL_S)

    async def _claims(self, runs: Sequence[RunSummary]) -> list[RunClaim]:
        """Claim abandoned runs and, up to `AT_ONCE`, runs that were never started."""
        claims = await self._store.claim_abandoned_runs(owner=self._name, lease_s=LEASE_S)
        for claim in claims:
            self._note("took-over", claim)
        # Not its own runs: an owner that claims a run again loses its earlier claim.
        own = {claim.run_task_id for claim in (*self._driving, *claims)}
        for run in runs:
            new = is_new(run) and run.run_task_id not in own
            if new and len(self._driving) + len(claims) < AT_ONCE:
                claimed = await self._store.claim_run(
                    run.run_task_id, owner=self._name, lease_s=LEASE_S
                )
                if claimed is not None:  # None: another replica was faster
                    claims.append(claimed)
                    self._note("claimed", claimed)
        return claims

    async def _drive(self, claim: RunClaim) -> None:
        try:
            async with kept(self._store, claim):
                await self._do_steps(claim)
            await self._store.release_claim(claim)
            self._note("released", claim)
        except ClaimLostError:
            self._note("lost", claim)
        finally:
            self._driving.discard(claim)

    async def _do_steps(self, claim: RunClaim) -> None:
        """Do every step that is not completed, of a new run as of a resumed one."""
        store = self._store.fenced(claim)
        snapshot = await store.load_run(claim.run_task_id)
        if snapshot is None:  # deleted after it was claimed
            return
        done: int = snapshot.run.context["done"]
        for step in snapshot.steps:
            if step.status is not TaskStatus.COMPLETED:
                step.status, step.started_at = TaskStatus.RUNNING, datetime.now(UTC)
                await store.upsert_step(claim.run_task_id, step)
                self._note("started", claim, step)

                await asyncio.sleep(WORK_S)  # the work of the step

                step.status, step.completed_at = TaskStatus.COMPLETED, datetime.now(UTC)
                step.result = {"replica": self._name, "token": claim.token}
                done += 1
                await store.commit_step(claim.run_task_id, step, {"done": done})
                self._note("committed", claim, step)

    def _note(self, event: str, claim: RunClaim, step: WorkflowStepState | None = None) -> None:
        step_id = "-" if step is None else step.step_id
        with self._journal.open("a") as file:
            file.write(f"{self._name} {event} {claim.run_task_id} {claim.token} {step_id}\n")


def is_new(run: RunSummary) -> bool:
    return run.step_counts[TaskStatus.PENDING] == run.step_counts.total()


def is_complete(run: RunSummary) -> bool:
    return run.step_counts[TaskStatus.COMPLETED] == run.step_counts.total()


async def work(name: str, journal: Path) -> None:
    async with open_store() as store:
        await Replica(store, name, journal).work()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
