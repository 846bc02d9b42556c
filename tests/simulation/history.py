"""Records what the clients of a simulation see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from workflow_store import (
    ClaimLostError,
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

from .loop import World
from .model import CHANGES, Kind, Operation, Outcome, Written
from .server import EPOCH

__all__ = ["START", "History"]

START = datetime.fromtimestamp(EPOCH, UTC)
_STATUSES = list(TaskStatus)


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
            status.value, status.is_terminal, START + timedelta(seconds=value)
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
            started_at=START + timedelta(seconds=value),
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
        if outcome is None and first.kind is not Kind.PURGE:  # whose first batches stay
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
