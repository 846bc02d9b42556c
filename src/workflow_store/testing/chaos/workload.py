"""Clients of a store that do whatever comes to their mind, on a few runs at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import ClaimLostError, RunNotFoundError, StoreUnavailableError, WorkflowStoreError
from ...state import TaskStatus, WorkflowExecutionState, WorkflowStepState
from ...store import RunClaim
from ..history import RecordedStore

__all__ = ["Clients", "Workload"]

STEPS: Final = tuple(f"step-{number}" for number in range(4))
AT_ONCE: Final = 2
"""Calls of one store on one run: more would only make the check slower."""

WEIGHTS: Final = {
    "upsert_step": 34, "commit_step": 14, "update_context": 9, "create_run": 3, "delete_run": 2,
    "get_step": 7, "get_run": 4, "list_steps": 5, "load_run": 6,
    "claim_run": 4, "fenced": 8, "renew_claim": 2, "release_claim": 1, "claim_abandoned_runs": 1,
}  # fmt: skip
_NEED_CLAIM: Final = frozenset({"fenced", "renew_claim", "release_claim"})


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients of one store do.

    Attributes:
        name: the name of the store object.
        seed: of all decisions; the moments are those of the machine.
        epoch: a time of CLOCK_MONOTONIC, the same for all processes, in seconds.
        tasks: how many clients call at once.
        runs: how many runs are in use at a time, the same for all stores.
        period_s: after this time, the next runs are in use.
        cancelled: the share of calls that are cancelled.
    """

    name: str
    seed: int
    epoch: float
    tasks: int = 16
    runs: int = 20
    period_s: float = 6.0
    cancelled: float = 0.01


@dataclass(slots=True)
class Clients:
    """The clients of one store.

    Attributes:
        store: the store, which records the calls.
        workload: what they do.
        stopping: set it to let them end after their calls.
        undocumented: errors that the package does not document, with their causes.
    """

    store: RecordedStore
    workload: Workload
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    undocumented: Counter[str] = field(default_factory=Counter)
    _claims: dict[str, RunClaim] = field(default_factory=dict)
    _busy: Counter[str] = field(default_factory=Counter)
    _values: int = 0

    async def run(self) -> None:
        """Call until `stopping` is set."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.workload.tasks):
                rng = random.Random(f"{self.workload.seed}/{self.workload.name}/{number}")
                group.create_task(self._client(rng))

    async def _client(self, rng: random.Random) -> None:
        while not self.stopping.is_set():
            period = int((time.monotonic() - self.workload.epoch) / self.workload.period_s)
            run = f"run-{period}-{rng.randrange(self.workload.runs)}"
            calls = rng.randint(1, 8)  # a client stays with a run for a while
            while calls > 0:
                calls -= 1
                if self._busy[run] >= AT_ONCE or self.stopping.is_set():
                    await asyncio.sleep(0.001)
                    break
                self._busy[run] += 1
                try:
                    if not await self._call(rng, run):
                        calls = max(calls, 4)  # which look for what it did
                finally:
                    self._busy[run] -= 1
                    if not self._busy[run]:
                        del self._busy[run]

    async def _call(self, rng: random.Random, run: str) -> bool:
        """Call any method, and return whether its outcome is known."""
        (method,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
        call = self._prepared(rng, run, method)
        # Of the calls that claim, ten times as many: there are few of them.
        share = self.workload.cancelled * (10 if method == "claim_run" else 1)
        try:
            if rng.random() >= share:
                await call()
            elif not await _ended_before_cancelled(rng, call):
                if method == "claim_run":
                    await self._absorb(lambda: self._claim_run(rng, run))
                return False
        except RunNotFoundError:
            await self._absorb(lambda: self.store.create_run(self._run(run)))
        except ClaimLostError:
            self._claims.pop(run, None)
        except StoreUnavailableError:
            await asyncio.sleep(rng.choice([0, 0, 0.1]))
            return False
        except Exception as error:
            self._note(error)
        return True

    async def _absorb(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except (ClaimLostError, RunNotFoundError, StoreUnavailableError):
            pass
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, WorkflowStoreError) else error
        self.undocumented[f"{type(error).__name__}: {error} (from {cause!r})"] += 1

    def _prepared(
        self, rng: random.Random, run: str, method: str
    ) -> Callable[[], Awaitable[object]]:
        claim = self._claims.get(run)
        if claim is None:
            if method in _NEED_CLAIM:
                method = "claim_run"
            return self._unfenced(self.store, rng, run, method)
        if method == "renew_claim":
            return lambda: self.store.renew_claim(claim)
        if method == "release_claim":
            del self._claims[run]
            return lambda: self.store.release_claim(claim)
        if method == "fenced":
            methods = ["upsert_step", "commit_step", "update_context", "delete_run"]
            (method,) = rng.choices(methods, [50, 25, 20, 5])
            return self._unfenced(self.store.fenced(claim), rng, run, method)
        return self._unfenced(self.store, rng, run, method)

    def _unfenced(
        self, store: RecordedStore, rng: random.Random, run: str, method: str
    ) -> Callable[[], Awaitable[object]]:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "upsert_step": lambda: store.upsert_step(run, self._step(rng)),
            "commit_step": lambda: store.commit_step(run, self._step(rng), self._value()),
            "update_context": lambda: store.update_context(run, self._value()),
            "create_run": lambda: store.create_run(self._run(run)),
            "delete_run": lambda: store.delete_run(run),
            "get_step": lambda: store.get_step(run, rng.choice(STEPS)),
            "get_run": lambda: store.get_run(run),
            "list_steps": lambda: store.list_steps(run),
            "load_run": lambda: store.load_run(run),
            "claim_run": lambda: self._claim_run(rng, run),
            "claim_abandoned_runs": lambda: self._claim_abandoned(rng),
        }
        return calls[method]

    async def _claim_run(self, rng: random.Random, run: str) -> None:
        owner = f"{self.workload.name}/{rng.randrange(3)}"
        claim = await self.store.claim_run(run, owner=owner, lease_s=rng.choice([0.1, 0.5, 30.0]))
        if claim is not None:
            self._claims[run] = claim

    async def _claim_abandoned(self, rng: random.Random) -> None:
        owner = f"{self.workload.name}/{rng.randrange(3)}"
        for claim in await self.store.claim_abandoned_runs(owner=owner, lease_s=1.0, limit=3):
            self._claims[claim.run_task_id] = claim

    def _value(self) -> dict[str, Any]:
        self._values += 1
        return {"by": self.workload.name, "number": self._values}

    def _run(self, run: str) -> WorkflowExecutionState:
        return WorkflowExecutionState(
            run_task_id=run, agent_id="agent", thread_id="thread", user_id="user",
            definition=self._value(), context=self._value(),
        )  # fmt: skip

    def _step(self, rng: random.Random) -> WorkflowStepState:
        return WorkflowStepState(
            step_id=rng.choice(STEPS),
            status=rng.choice([TaskStatus.RUNNING, TaskStatus.COMPLETED]),
            result=self._value(),
        )


async def _ended_before_cancelled(
    rng: random.Random, call: Callable[[], Awaitable[object]]
) -> bool:
    """Cancel a call after some rounds of the loop, or some milliseconds."""
    task = asyncio.ensure_future(call())
    if rng.random() < 0.5:
        for _ in range(rng.randint(0, 12)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(rng.expovariate(200))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        return False
    return True
