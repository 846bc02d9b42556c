"""The interface of a store. Its docstrings are the specification.

A store of your own subclasses `WorkflowStore` and can be certified with the tests in
`workflow_store.testing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Self

from .state import JsonValue, RunSummary, TaskStatus, WorkflowExecutionState, WorkflowStepState

__all__ = [
    "ResumableWorkflowStore",
    "RunClaim",
    "RunPage",
    "RunSnapshot",
    "StoreView",
    "WaitingStep",
    "WorkflowStore",
]


class RunSnapshot(NamedTuple):
    """A run and its steps as they were at one moment.

    Attributes:
        run: the run.
        steps: its steps in the order in which they were first inserted.
    """

    run: WorkflowExecutionState
    steps: list[WorkflowStepState]


class RunPage(NamedTuple):
    """A page of a listing.

    Attributes:
        runs: the runs of the page, newest first.
        next_cursor: what gives the next page; None on the last one.
    """

    runs: list[RunSummary]
    next_cursor: str | None


class WaitingStep(NamedTuple):
    """A step that waits, and the run that it belongs to."""

    run_task_id: str
    step: WorkflowStepState


class RunClaim(NamedTuple):
    """The right to drive a run.

    Attributes:
        run_task_id: the run.
        owner: who has the right: a process, a replica.
        token: a number that grows with every claim, across deletion and re-creation of the
            run too. Of two claims on a run, the one with the greater token is the later.
        lease_s: for how many seconds the right was given, and is given by a renewal.
        expires_at: until when it holds, in UTC, by the database's clock.
    """

    run_task_id: str
    owner: str
    token: int
    lease_s: float
    expires_at: datetime


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

    # -- life -------------------------------------------------------------------------

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

    # -- runs -------------------------------------------------------------------------

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

    # -- steps ------------------------------------------------------------------------

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


class ResumableWorkflowStore(WorkflowStore):
    """What a runtime needs beyond the seven methods: to resume, to look, and to share runs.

    What is said of a `WorkflowStore` holds here, too.

    **Claims.** A claim gives one owner the right to drive a run for a time, its lease, by the
    clock of the database. An owner that lives renews its claims well before they lapse; the
    claims of one that died lapse, and others take them over with `claim_abandoned_runs`. A
    lease alone does not stop an owner that was paused, by a debugger or a busy machine, and
    goes on after another one took over: its writes through `fenced` are refused, while what
    it does outside of the store is its own to guard, for which the token serves.
    """

    # -- resume -----------------------------------------------------------------------

    @abstractmethod
    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """Give a run and its steps as they are at one moment, None where there is no run.

        The read that a resume makes: never a step that is newer than the context, nor the
        other way round. One round trip, where the database allows.
        """

    @abstractmethod
    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        """Do `upsert_step` and `update_context` in one transaction.

        No crash leaves one without the other, and no reader sees one without the other.

        Raises:
            InvalidStateError: a field of the step breaks the rules, or the context is not JSON.
            RunNotFoundError: there is no such run.
        """

    # -- look -------------------------------------------------------------------------

    @abstractmethod
    async def list_runs(
        self,
        *,
        agent_id: str | None = None,
        thread_id: str | None = None,
        user_id: str | None = None,
        workspace_id: str | None = None,
        step_status: TaskStatus | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Give runs without their JSON values, newest first; of equal age, by id downwards.

        Paging goes by key: a page costs the same wherever it is, and no run is skipped or
        repeated while others are added.

        Args:
            agent_id: only runs that have exactly this.
            thread_id: only runs that have exactly this.
            user_id: only runs that have exactly this.
            workspace_id: only runs that have exactly this.
            step_status: only runs with at least one step in this status.
            created_after: only runs created later than this.
            created_before: only runs created earlier than this.
            limit: how many runs a page has at most, 1 to 1,000.
            cursor: `next_cursor` of the page before, with the same filters; `limit` may change.

        Raises:
            InvalidStateError: the limit is out of range, a filter breaks the rules, or the
                cursor is none of this store's or of other filters.
        """

    @abstractmethod
    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        """Give the step that waits under an id, None where none does.

        A step waits as long as it has this `wait_task_id` and has not ended. Of several, the
        one that was inserted last.
        """

    # -- clean up ---------------------------------------------------------------------

    @abstractmethod
    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        """Delete old runs with their steps and claims, the oldest first; tell how many.

        It works in transactions of at most `batch_size` runs, with a short pause between
        them, so that writers have their turn. Stopped at any moment, it leaves nothing half
        deleted, and a second call goes on.

        Args:
            created_before: only runs created earlier than this.
            only_terminal: only runs whose steps have all ended, those without steps included.
            batch_size: runs deleted in one transaction, 1 to 10,000.

        Raises:
            InvalidStateError: an argument is out of range or no aware time.
        """

    # -- share ------------------------------------------------------------------------

    @abstractmethod
    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        """Take the right to drive a run, None while another owner's lease holds.

        The same owner may claim again; it gets a new token, and its old claim is lost.

        Args:
            run_task_id: the run.
            owner: an identifier of who claims; two that run at once must not share it.
            lease_s: seconds, more than 0 and at most 31,536,000 (a year).

        Raises:
            InvalidStateError: an argument breaks these rules.
            RunNotFoundError: there is no such run.
        """

    @abstractmethod
    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        """Take over runs whose lease ran out without being released, the longest lapsed first.

        Two callers never get the same run. A run that was never claimed is not abandoned. A call
        that fails or is cancelled may have claimed runs that nobody was told of; they are
        abandoned again when that lease has run out.

        Args:
            owner: as for `claim_run`.
            lease_s: as for `claim_run`.
            limit: how many at most, 1 to 1,000.
        """

    @abstractmethod
    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        """Make a claim hold for its `lease_s` from now; the token stays.

        A claim that lapsed and that nobody took can still be renewed.

        Raises:
            ClaimLostError: it was taken over, claimed anew, released or deleted.
        """

    @abstractmethod
    async def release_claim(self, claim: RunClaim) -> None:
        """Give the right back; a claim that was lost meanwhile is no error, nor changed."""

    @abstractmethod
    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        """Give a view of this store whose writes need the claim.

        `create_run`, `update_context`, `delete_run`, `upsert_step` and `commit_step` check it
        in the transaction of the write, of whichever run. A claim whose lease lapsed and that
        nobody took still writes. All else is as ever. The view is open as long as the store
        is; opening or closing it does nothing.

        Raises:
            ClaimLostError: by a write, once the claim was taken over, claimed anew, released
                or deleted; nothing was written.
        """


class StoreView(WorkflowStore):
    """What is open as long as the store behind it is; opening or closing it does nothing."""

    async def open(self) -> None:
        """Leave the store as it is."""

    async def close(self) -> None:
        """Leave the store as it is."""
