"""Claim, write, fence, renew, release, delete and purge the same few runs: `… URL OWNER`.

No task deletes the runs called `kept …`; those called `gone …` come and go. Any error but
that a claim is lost, or a run not there, ends the program. It prints what became of each step
that it wrote, every one under an id of its own: `<written or the error> <run>/<step>`.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable
from datetime import UTC, datetime

from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    RunNotFoundError,
    SqlWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
)
from workflow_store.testing import a_run, a_step

TASKS, CALLS = 8, 120
CUT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = [f"{kind} {number}" for kind in ("kept", "gone") for number in range(4)]


def a_named_run(name: str) -> WorkflowExecutionState:
    """Return a run whose name decides whether it is purged."""
    return a_run(name, created_at=CUT.replace(year=2027 if name.startswith("kept") else 2025))


class Fighter:
    """One task, with the claims that it has got and perhaps lost."""

    def __init__(self, store: SqlWorkflowStore, owner: str) -> None:
        self.store = store
        self.owner = owner
        self.claims: list[RunClaim] = []

    async def fight(self) -> None:
        for number in range(CALLS):
            kinds = [self.claim, self.take_over, self.renew, self.release, self.purge, self.delete]
            kind = random.choices(kinds, [4, 3, 3, 1, 1, 1])[0]
            with contextlib.suppress(ClaimLostError, RunNotFoundError):
                await (kind() if random.random() < 0.5 else self.write(f"{self.owner}-{number}"))

    async def claim(self) -> None:
        lease_s = random.choice([0.001, 0.02, 0.1])
        claim = await self.store.claim_run(random.choice(NAMES), owner=self.owner, lease_s=lease_s)
        self.claims += [claim] if claim else []

    async def take_over(self) -> None:
        self.claims += await self.store.claim_abandoned_runs(
            owner=self.owner, lease_s=random.choice([0.001, 0.1]), limit=random.randint(1, 5)
        )

    async def renew(self) -> None:
        await asyncio.gather(*map(self.store.renew_claim, self.claims[-3:]))

    async def release(self) -> None:
        await asyncio.gather(*map(self.store.release_claim, self.claims[-1:]))

    async def purge(self) -> None:
        await self.store.purge_runs(
            created_before=CUT,
            only_terminal=random.random() < 0.5,
            batch_size=random.randint(1, 4),
        )

    async def delete(self) -> None:
        await self.store.delete_run(random.choice([n for n in NAMES if n.startswith("gone")]))

    async def write(self, step_id: str) -> None:
        """Write in one of the ways: without a claim, with one, or with one of another run."""
        view: ResumableWorkflowStore = self.store
        name = random.choice(NAMES)
        token = None
        if self.claims and random.random() < 0.7:
            claim = random.choice(self.claims[-3:])
            view = self.store.fenced(claim)
            if random.random() < 0.8:
                name, token = claim.run_task_id, claim.token
        way = random.random()
        if way < 0.1:
            await view.create_run(a_named_run(name))
        elif way < 0.2:
            await view.update_context(name, step_id)
        elif way < 0.22 and name.startswith("gone"):
            await view.delete_run(name)
        else:
            status = random.choice([TaskStatus.COMPLETED, TaskStatus.RUNNING])
            step = a_step(step_id, status=status, result=token)
            await printed(
                view.commit_step(name, step, step_id)
                if random.random() < 0.6
                else view.upsert_step(name, step),
                f"{name}/{step_id}",
            )


async def printed(write: Awaitable[None], what: str) -> None:
    try:
        await write
    except (ClaimLostError, RunNotFoundError) as error:
        print(type(error).__name__, what)
        raise
    print("written", what)


async def main(url: str, owner: str) -> None:
    async with SqlWorkflowStore(url) as store:
        for name in NAMES:
            await store.create_run(a_named_run(name))
        await asyncio.gather(*(Fighter(store, f"{owner}-{task}").fight() for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
