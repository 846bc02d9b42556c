"""The interface of a store. Its docstrings are the specification.

A store of your own subclasses `WorkflowStore` and can be certified with the tests in
`workflow_store.testing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NamedTuple, Self

from .state import JsonValue, WorkflowExecutionState, WorkflowStepState

__all__ = ["RunSnapshot", "WorkflowStore"]


class RunSnapshot(NamedTuple):
    """A run and its steps as they were at one moment.

    Attributes:
        run: the run.
        steps: its steps in the order in which they were first inserted.
    """

    run: WorkflowExecutionState
    steps: list[WorkflowStepState]


class WorkflowStore(ABC):
    """Keeps the state of workflow runs and of their steps.

    A store holds what was started and how far each step got. It never runs a step, never
    interprets a definition and never decides a run's status.

    **Concurrency.** All methods may be called at once from many tasks, processes and hosts.
    One store object belongs to one event loop.

    **Atomicity.** A call is applied whole or not at all. Repeating a call leaves the same
    state.

    **Durability.** When a write returns, it survives `kill -9` of the process and, on a
    database with its default settings, loss of power.

    **Cancellation.** A cancelled call ends at once with `asyncio.CancelledError`; what it
    had begun is completed or undone as a whole, and the store stays usable.

    **Isolation of values.** What is passed in and what is returned are the caller's own:
    changing them later never changes the store, nor the other way round.

    **Lossless values.** JSON values come back equal to what went in, in the same key order:
    strings of any code points, integers of any size, every finite float bit for bit. A
    tuple comes back as a list.

    **Errors.** Every method raises, beside what it names itself:

    * `InvalidStateError`: an argument breaks the rules; nothing was written
    * `StoreClosedError`: the store is not open
    * `StoreUnavailableError`: the database cannot be reached, stays locked or timed out
    * `SchemaMismatchError`: the database is not at the revision that is needed
    * `WorkflowStoreError`: anything else that the database refused

    A store is an async context manager: `async with` opens and closes it.
    """

    # -- life ---------------------------------------------------------------------------

    @abstractmethod
    async def open(self) -> None:
        """Make the store ready. An open store stays as it is; a closed one opens again.

        Raises:
            StoreUnavailableError: the database cannot be reached.
            SchemaMismatchError: the database is not at the revision that is needed.
        """

    @abstractmethod
    async def close(self) -> None:
        """End what is under way and let go of all resources. Closing twice is no error.

        Calls that were made before are completed first. A store in memory is empty once it
        was closed.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- runs ---------------------------------------------------------------------------

    @abstractmethod
    async def create_run(self, state: WorkflowExecutionState) -> None:
        """Insert a run, or replace all its fields where it exists: create or resume.

        The steps of a run that exists stay as they are.

        Args:
            state: the run; `created_at` and `updated_at` are stored as they are given.

        Raises:
            InvalidStateError: a field breaks the rules; the message names it and, inside a
                JSON value, the path.
        """

    @abstractmethod
    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        """Give the run, or None where there is none."""

    @abstractmethod
    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        """Replace the context of a run whole and set its `updated_at` to now.

        Nothing else of the run changes.

        Raises:
            InvalidStateError: the context is not JSON.
            RunNotFoundError: there is no such run.
        """

    @abstractmethod
    async def delete_run(self, run_task_id: str) -> None:
        """Drop a run and all its steps. A run that is not there is no error."""

    # -- steps --------------------------------------------------------------------------

    @abstractmethod
    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        """Insert a step at the end of its run, or replace all its fields where it exists.

        A step that is replaced keeps its place. Two writes awaited one after the other are
        inserted in that order; two made at once in some order, the same for every reader
        from then on.

        Raises:
            InvalidStateError: a field breaks the rules.
            RunNotFoundError: there is no such run, so that a late write never brings a
                deleted run back.
        """

    @abstractmethod
    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        """Give the step, or None where there is none."""

    @abstractmethod
    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        """Give all steps of a run in the order in which they were first inserted.

        The list is of one moment. It is empty where there is no such run.
        """
