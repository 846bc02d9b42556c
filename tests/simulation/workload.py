"""Clients that call a store at random, and record what they see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    RunNotFoundError,
    RunSnapshot,
    StoreUnavailableError,
    TaskStatus,
    WaitingStep,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStoreError,
)
from workflow_store.sql.dialects.errors import cause_chain

from .checker import CHANGES, Kind, Operation, Outcome, Written
from .loop import Loop, World
from .server import EPOCH

__all__ = ["Client", "History", "Process"]

_STATUSES = list(TaskStatus)
_START = datetime.fromtimestamp(EPOCH, UTC)


class History:
    """The calls of all clients, and what is wrong without any search.

    Attributes:
        operations: the calls, by run.
        written: what the numbers of the values stand for.
        violations: what no order of the calls explains.
    """

    def __init__(self, world: World, runs: list[str]) -> None:
        self.world = world
        self.runs = runs
        self.operations: dict[str, list[Operation]] = {run: [] for run in runs}
        self.written: dict[int, Written] = {}
        self.violations: list[str] = []
        self.open_calls: dict[int, list[Operation]] = {}
        self.calls = 0
        self.step_runs: dict[int, str] = {}
        self._steps: dict[int, dict[str, Any]] = {}
        self._ticks = 0

    def tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def now(self) -> float:
        return EPOCH + self.world.time

    # -- values ---------------------------------------------------------------------------

    def new_value(self) -> int:
        value = len(self.written) + 1
        status = self.world.random.choice(_STATUSES)
        self.written[value] = Written(
            status.value, status.is_terminal, _START + timedelta(seconds=value)
        )
        return value

    def run(self, run: str, value: int) -> WorkflowExecutionState:
        return WorkflowExecutionState(
            run_task_id=run,
            agent_id="agent",
            thread_id="thread",
            user_id="user",
            definition={"n": value},
            input={"n": value},
            context={"n": value},
            created_at=self.written[value].created_at,
            updated_at=self.written[value].created_at,
        )

    def step(self, run: str, step: str, value: int) -> WorkflowStepState:
        state = WorkflowStepState(
            step_id=step,
            status=TaskStatus(self.written[value].status),
            result={"n": value},
            error=f"error {value}" if value % 3 == 0 else None,
            started_at=_START + timedelta(seconds=value),
            wait_task_id=f"wait-{value}",
        )
        self._steps[value] = state.model_dump()
        self.step_runs[value] = run
        return state

    def seen_run(self, state: WorkflowExecutionState | None) -> tuple[int, int] | None:
        """Return the numbers of a run that was read, and check that it is whole."""
        if state is None:
            return None
        value, context = state.input["n"], state.context["n"]
        written = self.written.get(value)
        if (
            written is None
            or state.definition != {"n": value}
            or (
                (state.agent_id, state.workspace_id, state.created_at)
                != ("agent", None, written.created_at)
            )
        ):
            self.violations.append(f"a run that was never written: {state}")
        state.context["n"] = state.input["n"] = -1  # the store must not notice
        return value, context

    def seen_step(self, state: WorkflowStepState | None) -> int | None:
        """Return the number of a step that was read, and check that it is whole."""
        if state is None:
            return None
        assert isinstance(state.result, dict)
        value: int = state.result["n"]
        if self._steps.get(value) != state.model_dump():
            self.violations.append(f"a step that was never written: {state}")
        state.result["n"] = -1
        return value

    def seen_steps(self, states: list[WorkflowStepState]) -> tuple[tuple[str, int | None], ...]:
        return tuple((state.step_id, self.seen_step(state)) for state in states)

    def seen_snapshot(self, snapshot: RunSnapshot | None) -> Any:
        return snapshot and (self.seen_run(snapshot.run), self.seen_steps(snapshot.steps))

    def seen_waiting(self, waiting: WaitingStep | None) -> Any:
        return waiting and (waiting.run_task_id, self.seen_step(waiting.step))

    # -- calls ----------------------------------------------------------------------------

    async def record(
        self,
        operations: list[Operation],
        call: Callable[[], Awaitable[Any]],
        see: Callable[[Any], None] | None = None,
    ) -> Any:
        """Call, and record the outcome in each of the operations, which are one call.

        Args:
            operations: what the call does, run by run.
            call: calls the store.
            see: sets the answers of the operations.
        """
        self.calls += 1
        first = operations[0]
        self.open_calls[first.called] = operations
        if self.world.trace is not None:
            self.world.note(f"call {first.called}: {first}")
        outcome, answer = await self._outcome(first, call)
        if outcome is None:
            operations = []  # nothing was written
        del self.open_calls[first.called]
        ended = self.tick()
        if self.world.trace is not None:
            self.world.note(f"call {first.called}: {outcome} {answer!r:.200}")
        for operation in operations:
            operation.outcome = outcome or Outcome.UNKNOWN
            operation.ended, operation.ended_at = ended, self.now()
        if outcome is Outcome.ANSWERED and see is not None and operations:
            see(answer)
        for operation in operations:
            if operation.kind in CHANGES or (
                operation.outcome is not Outcome.UNKNOWN and operation.kind is not Kind.NOTHING
            ):
                self.operations[operation.run].append(operation)
        return answer

    async def _outcome(
        self, operation: Operation, call: Callable[[], Awaitable[Any]]
    ) -> tuple[Outcome | None, Any]:
        """Return how a call ended, None if it was rejected, and its answer."""
        try:
            return Outcome.ANSWERED, await call()
        except RunNotFoundError:
            return Outcome.NO_RUN, None
        except ClaimLostError:
            return Outcome.CLAIM_LOST, None
        except (StoreUnavailableError, asyncio.CancelledError):
            return Outcome.UNKNOWN, None
        except Exception as error:
            is_full = any(isinstance(cause, asyncpg.DiskFullError) for cause in cause_chain(error))
            if not (is_full and isinstance(error, WorkflowStoreError)):
                self.violations.append(
                    f"an undocumented error of {operation.kind}: {error!r} from {error.__cause__!r}"
                )
            return None, None

    def abandon(self, store: str) -> None:
        """Record the calls that a crashed process had in flight: they may take effect."""
        for called, operations in list(self.open_calls.items()):
            if operations[0].store == store:
                del self.open_calls[called]
                for operation in operations:
                    if operation.kind in CHANGES:
                        self.operations[operation.run].append(operation)


class Process:
    """A process with one store object."""

    def __init__(self, loop: Loop, store: ResumableWorkflowStore) -> None:
        self.loop = loop
        self.store = store
        self.name = loop.name


class Client:
    """A task that calls the store of its process, one call or a few at a time.

    Args:
        process: the process.
        history: records the calls.
        name: the owner of its claims.
        weights: how often it calls each method.
        cancels: the share of calls that are cancelled.
        pause_s: the longest pause between calls.
    """

    def __init__(
        self,
        process: Process,
        history: History,
        name: str,
        *,
        weights: dict[Kind, int],
        cancels: float,
        pause_s: float,
    ) -> None:
        self._process = process
        self._history = history
        self._name = name
        self._random = history.world.random
        self._kinds, self._weights = list(weights), list(weights.values())
        self._cancels = cancels
        self._pause_s = pause_s
        self._claims: list[RunClaim] = []

    async def work(self, calls: int) -> None:
        """Make calls, awaited one after the other or a few at once."""
        random = self._random
        while calls > 0:
            at_once = 1 if random.random() < 0.7 else random.randint(2, 4)
            tasks = [self._start() for _ in range(min(calls, at_once))]
            calls -= len(tasks)
            await asyncio.wait(tasks)
            for task in tasks:
                task.result()
            if random.random() < 0.7:
                await asyncio.sleep(random.random() * self._pause_s)

    def _start(self) -> asyncio.Task[None]:
        (kind,) = self._random.choices(self._kinds, self._weights)
        run = self._random.choice(self._history.runs)
        task = asyncio.get_running_loop().create_task(self._call(kind, run))
        if self._random.random() < self._cancels:
            # After the first step of the task: before it, no call would be recorded.
            delay_s = self._random.choice([0.0, 0.001, 0.01, 0.1, 1.0]) * self._random.random()
            asyncio.get_running_loop().call_later(delay_s, task.cancel)
        return task

    def _operation(self, kind: Kind, run: str, **values: Any) -> Operation:
        history = self._history
        return Operation(
            kind, run, self._process.name, history.tick(), history.now(), owner=self._name, **values
        )

    async def _call(self, kind: Kind, run: str) -> None:
        claims = [claim for claim in self._claims if claim.run_task_id == run]
        if kind in {Kind.RENEW, Kind.RELEASE}:
            if claims:
                await self._end_or_renew(kind, run, self._random.choice(claims))
        elif kind in {Kind.CLAIM, Kind.TAKE}:
            await self._claim(kind, run)
        elif kind in {Kind.PURGE, Kind.SUMMARY}:
            await self._on_all_runs(kind)
        elif kind in CHANGES:
            claim = self._random.choice(claims) if claims and self._random.random() < 0.7 else None
            await self._write(kind, run, claim)
        else:
            await self._read(kind, run)

    async def _write(self, kind: Kind, run: str, claim: RunClaim | None) -> None:
        history, store = self._history, self._process.store
        value, step_id = history.new_value(), f"step-{self._random.randrange(3)}"
        token = None
        if claim is not None:
            store, token = store.fenced(claim), claim.token
        operation = self._operation(kind, run, value=value, step=step_id, token=token)
        context = {"n": value}
        step = history.step(run, step_id, value) if kind in {Kind.STEP, Kind.COMMIT} else None
        if kind is Kind.CREATE:
            state = history.run(run, value)
            await history.record([operation], lambda: store.create_run(state))
            state.context["n"] = -1  # the store must not notice
        elif kind is Kind.CONTEXT:
            await history.record([operation], lambda: store.update_context(run, context))
        elif kind is Kind.DELETE:
            await history.record([operation], lambda: store.delete_run(run))
        elif kind is Kind.STEP:
            assert step is not None
            await history.record([operation], lambda: store.upsert_step(run, step))
        else:
            assert step is not None
            await history.record([operation], lambda: store.commit_step(run, step, context))
        context["n"] = -1
        if step is not None and isinstance(step.result, dict):
            step.result["n"] = -1

    async def _read(self, kind: Kind, run: str) -> None:
        history, store = self._history, self._process.store
        step = f"step-{self._random.randrange(3)}"
        operation = self._operation(kind, run, step=step)
        if kind is Kind.WAITING:
            if not history.step_runs:
                return
            operation.value = self._random.choice(list(history.step_runs))
            operation.run = history.step_runs[operation.value]
        call, see = {
            Kind.GET_RUN: (lambda: store.get_run(run), history.seen_run),
            Kind.GET_STEP: (lambda: store.get_step(run, step), history.seen_step),
            Kind.LIST_STEPS: (lambda: store.list_steps(run), history.seen_steps),
            Kind.LOAD: (lambda: store.load_run(run), history.seen_snapshot),
            Kind.WAITING: (
                lambda: store.find_waiting_step(f"wait-{operation.value}"),
                history.seen_waiting,
            ),
        }[kind]

        def seen(answer: Any) -> None:
            operation.answer = see(answer)  # type: ignore[operator]
            if kind is Kind.WAITING and answer is not None:
                operation.run, operation.answer = operation.answer
                if operation.run not in history.operations:
                    history.violations.append(f"an unknown run: {operation.run}")

        await history.record([operation], call, seen)

    async def _on_all_runs(self, kind: Kind) -> None:
        history, store = self._history, self._process.store
        operations = [self._operation(kind, run) for run in history.runs]
        operation = operations[0]
        for other in operations:
            other.called = operation.called
        if kind is Kind.PURGE:
            bound = _START + timedelta(seconds=self._random.randrange(len(history.written) + 2))
            for operation in operations:
                operation.answer, operation.is_optional = bound, True

            def purged(count: int) -> None:
                if count == 0:
                    for operation in operations:
                        operation.kind = Kind.NOTHING

            await history.record(operations, lambda: store.purge_runs(created_before=bound), purged)
            return

        def listed(page: Any) -> None:
            found = {run.run_task_id: run for run in page.runs}
            for operation in operations:
                run = found.get(operation.run)
                if run is not None:
                    value = round((run.created_at - _START).total_seconds())
                    counts = {status.value: n for status, n in run.step_counts.items() if n}
                    operation.answer = (value, counts)

        await history.record(operations, lambda: store.list_runs(limit=10), listed)

    async def _claim(self, kind: Kind, run: str) -> None:
        history, store = self._history, self._process.store
        lease_s = self._random.choice([0.05, 0.5, 3.0])
        if kind is Kind.CLAIM:
            operation = self._operation(kind, run, lease_s=lease_s)

            def claimed(claim: RunClaim | None) -> None:
                operation.answer = claim and self._seen_claim(operation, claim)

            claim = await history.record(
                [operation],
                lambda: store.claim_run(run, owner=self._name, lease_s=lease_s),
                claimed,
            )
            if claim is not None:
                self._claims.append(claim)
            return
        operations = [self._operation(kind, run, lease_s=lease_s) for run in history.runs]
        for other in operations:
            other.called = operations[0].called

        def taken(claims: list[RunClaim]) -> None:
            by_run = {claim.run_task_id: claim for claim in claims}
            for operation in operations:
                if operation.run in by_run:
                    operation.answer = self._seen_claim(operation, by_run[operation.run])
                else:
                    operation.kind = Kind.NOTHING

        claims = await history.record(
            operations,
            lambda: store.claim_abandoned_runs(owner=self._name, lease_s=lease_s),
            taken,
        )
        self._claims += claims or []

    async def _end_or_renew(self, kind: Kind, run: str, claim: RunClaim) -> None:
        history, store = self._history, self._process.store
        operation = self._operation(kind, run, token=claim.token, lease_s=claim.lease_s)

        def renewed(claim: RunClaim | None) -> None:
            if claim is not None:
                operation.answer = self._seen_claim(operation, claim)

        if kind is Kind.RENEW:
            await history.record([operation], lambda: store.renew_claim(claim), renewed)
        else:
            await history.record([operation], lambda: store.release_claim(claim))

    def _seen_claim(self, operation: Operation, claim: RunClaim) -> tuple[int, float]:
        """Return token and end of a lease, and check that the lease is whole."""
        ends = claim.expires_at.timestamp()
        if (
            not operation.called_at - 0.00001
            <= ends - claim.lease_s
            <= operation.ended_at + 0.00001
        ):
            self._history.violations.append(f"a lease that is not whole: {claim} of {operation}")
        return claim.token, ends
