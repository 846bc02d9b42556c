"""The interface of a workflow store. Its docstrings are the specification.

Third-party stores subclass `WorkflowStore`; the tests in `workflow_store.testing` certify them.
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
    """A run and its steps, read as of one moment.

    Attributes:
        run: the run.
        steps: its steps, in the order of their first insertion.
    """

    run: WorkflowExecutionState
    steps: list[WorkflowStepState]


class RunPage(NamedTuple):
    """A page of `list_runs`.

    Attributes:
        runs: the runs, newest first.
        next_cursor: the `cursor` of the next page, or None on the last page.
    """

    runs: list[RunSummary]
    next_cursor: str | None


class WaitingStep(NamedTuple):
    """A step that waits for an outside party.

    Attributes:
        run_task_id: the run of the step.
        step: the step.
    """

    run_task_id: str
    step: WorkflowStepState


class RunClaim(NamedTuple):
    """One owner's right to drive a run until its lease expires.

    Attributes:
        run_task_id: the run.
        owner: the process or replica that holds the claim.
        token: a number that grows with every claim of the run, also across its deletion and
            re-creation. Of two claims, the one with the greater token is the later.
        lease_s: the length of the lease in seconds, from the claim or its last renewal.
        expires_at: the end of the lease, in UTC, by the clock of the database. Informational:
            stores ignore it in the claims that they are passed.
    """

    run_task_id: str
    owner: str
    token: int
    lease_s: float
    expires_at: datetime


class WorkflowStore(ABC):
    """Keeps the state of workflow runs and their steps.

    A store keeps what was started and how far each step got. It never runs a step, never
    interprets a definition and never decides a run's status.

    A store is an async context manager: `async with store:` opens it, and closes it at the end
    of the block.

    **Concurrency.** All methods may be called concurrently from many tasks, processes and
    hosts. A store object belongs to the event loop in which it was opened: in another one,
    every method raises `WorkflowStoreError` and writes nothing.

    **Atomicity.** A call is applied completely or not at all. Repeating a call leaves the same
    state.

    **Order.** Of two writes awaited one after the other, the first takes effect first. Two
    concurrent writes take effect in some order, which is the same for every reader.

    **Durability.** When a write returns, it survives `kill -9` of the process and, on SQLite and
    PostgreSQL with default settings, loss of power. The in-memory store ends with its process.

    **Cancellation.** A cancelled call raises `asyncio.CancelledError` at once. A write that has
    begun is completed or rolled back as a whole, and the store remains usable.

    **Failures.** A store repeats an attempt automatically only if the attempt had no effect.
    After a cancelled call, or one that raised `StoreUnavailableError`, a later read of that run
    through the same store object shows whether it was applied. Until this is certain, calls on
    that run wait, or raise `StoreUnavailableError`: no earlier write takes effect after a call
    that has returned.

    **Isolation.** The store never shares an object with its callers: changing an argument after
    the call, or a returned object, does not change the store.

    **Lossless values.** JSON values are returned equal to what was stored, in the same key order:
    strings of any code points, integers of any size, every finite float bit for bit. A tuple is
    returned as a list.

    **Errors.** In addition to the errors listed at a method, every method raises:

    * `InvalidStateError` if an argument breaks the rules; nothing was written
    * `StoreClosedError` if the store is not open; nothing was written
    * `StoreUnavailableError` if the database cannot be reached, stays locked or times out;
      the outcome of a write is unknown
    * `SchemaMismatchError` if the database is not at the required revision; nothing was written
    * `WorkflowStoreError` for anything else that the database rejected; nothing was written
    """

    # -- open and close ---------------------------------------------------------------

    @abstractmethod
    async def open(self) -> None:
        """Open the store. Does nothing if it is open; a closed store may be opened again.

        Raises:
            StoreUnavailableError: the database cannot be reached.
            SchemaMismatchError: the database is not at the required revision.
        """

    @abstractmethod
    async def close(self) -> None:
        """Complete the calls that are in progress, and release all resources.

        Does nothing if the store is closed. The in-memory store discards its runs.
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
        """Insert a run, or replace all its fields if it exists: create or resume.

        An existing run keeps its steps and its claim.

        Args:
            state: the run. Its `created_at` and `updated_at` are stored as they are.

        Raises:
            InvalidStateError: a field breaks the rules. The message names the field and, inside
                a JSON value, the path.
        """

    @abstractmethod
    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        """Return a run, or None if it does not exist."""

    @abstractmethod
    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        """Replace the whole context of a run, and set its `updated_at` to the current time.

        The other fields of the run do not change. The time is that of the calling process.

        Args:
            run_task_id: the run.
            context: the new context.

        Raises:
            InvalidStateError: the context is not JSON.
            RunNotFoundError: the run does not exist.
        """

    @abstractmethod
    async def delete_run(self, run_task_id: str) -> None:
        """Delete a run, all its steps and its claim. Does nothing if the run does not exist."""

    # -- steps ------------------------------------------------------------------------

    @abstractmethod
    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        """Insert a step at the end of its run, or replace all its fields if it exists.

        An existing step keeps its position. Since the run must exist, a late write never brings
        a deleted run back.

        Args:
            run_task_id: the run.
            step: the step.

        Raises:
            InvalidStateError: a field breaks the rules. The message names the field and, inside
                the result, the path.
            RunNotFoundError: the run does not exist.
        """

    @abstractmethod
    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        """Return a step, or None if it or its run does not exist."""

    @abstractmethod
    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        """Return all steps of a run in the order of their first insertion, as of one moment.

        The list is empty if the run does not exist.
        """


class ResumableWorkflowStore(WorkflowStore):
    """Extends `WorkflowStore` with what a runtime needs to resume, list and share runs.

    Everything stated at `WorkflowStore` applies here too.

    **Claims.** A claim is one owner's right to drive a run until its lease expires, by the clock
    of the database. The owner renews its claims well before they expire. If it dies, they
    expire, and other owners take the runs over with `claim_abandoned_runs`.

    A lease alone does not stop an owner that was paused, by a debugger or a busy machine, and
    continues after another owner took over. `fenced` rejects its writes to the store. For its
    effects outside the store, pass the token along, and have the other side reject a token
    smaller than one that it has seen.
    """

    # -- resume -----------------------------------------------------------------------

    @abstractmethod
    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """Return a run and its steps as of one moment, or None if the run does not exist.

        This is the read for resuming a run: the steps are never newer than the context, nor
        older. It takes one round trip if the database allows it.
        """

    @abstractmethod
    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        """Do `upsert_step` and `update_context` in one transaction.

        No crash leaves one without the other, and no reader sees one without the other.

        Args:
            run_task_id: the run.
            step: the step.
            context: the new context.

        Raises:
            InvalidStateError: a field of the step breaks the rules, or the context is not JSON.
            RunNotFoundError: the run does not exist.
        """

    # -- list and find ----------------------------------------------------------------

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
        """Return a page of runs without their JSON values, newest first.

        Runs are in descending order of `created_at`, then of `run_task_id`. Paging is by key: the
        cost of a page does not grow with its number, and no run is skipped or repeated while
        others are added.

        Args:
            agent_id: only runs with this `agent_id`.
            thread_id: only runs with this `thread_id`.
            user_id: only runs with this `user_id`.
            workspace_id: only runs with this `workspace_id`.
            step_status: only runs with at least one step in this status.
            created_after: only runs created after this time, exclusive.
            created_before: only runs created before this time, exclusive.
            limit: the maximum number of runs on the page, 1 to 1,000.
            cursor: the `next_cursor` of the previous page, None for the first. The filters must
                be the same; `limit` may differ.

        Raises:
            InvalidStateError: a filter breaks the rules, the limit is out of range, or the cursor
                is malformed or belongs to other filters.
        """

    @abstractmethod
    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        """Return the step that waits under an id, or None if no step does.

        A step waits while it has this `wait_task_id` and a status that is not terminal. Of
        several such steps, the last inserted is returned.
        """

    # -- delete old runs --------------------------------------------------------------

    @abstractmethod
    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        """Delete old runs with their steps and claims, oldest first.

        Each batch is a transaction of its own, with a short pause in between for other writers.
        If interrupted, it leaves no run partly deleted, and a second call continues.

        Args:
            created_before: only runs created before this time, exclusive.
            only_terminal: only runs whose steps have all ended. A run without steps counts.
            batch_size: the maximum number of runs deleted in one transaction, 1 to 10,000.

        Returns:
            The number of runs deleted.

        Raises:
            InvalidStateError: `created_before` is not an aware datetime, or `batch_size` is out
                of range.
        """

    # -- claims -----------------------------------------------------------------------

    @abstractmethod
    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        """Claim a run.

        The same owner may claim again: it gets a new token, and its previous claim is lost.

        Args:
            run_task_id: the run.
            owner: an identifier of the claiming process, unique among those that run at a time.
            lease_s: the length of the lease in seconds, greater than 0 and at most 31,536,000
                (a year).

        Returns:
            The claim, or None while another owner's lease holds.

        Raises:
            InvalidStateError: an argument breaks these rules.
            RunNotFoundError: the run does not exist.
        """

    @abstractmethod
    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        """Claim runs whose lease expired without being released.

        Concurrent callers never get the same run. A run that was never claimed is not abandoned.
        A call that fails or is cancelled may have claimed runs without returning them; they are
        abandoned again when their new lease expires.

        Args:
            owner: as for `claim_run`.
            lease_s: as for `claim_run`.
            limit: the maximum number of runs to claim, 1 to 1,000.

        Returns:
            The claims, in the order in which the previous leases expired.

        Raises:
            InvalidStateError: an argument breaks these rules.
        """

    @abstractmethod
    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        """Extend a claim to `lease_s` seconds from now.

        An expired claim can be renewed as long as no other owner took the run over.

        Returns:
            The claim with the same token and the new `expires_at`.

        Raises:
            ClaimLostError: the run was claimed again, released or deleted.
        """

    @abstractmethod
    async def release_claim(self, claim: RunClaim) -> None:
        """Release a claim. Does nothing if the claim is lost."""

    @abstractmethod
    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        """Return a view of this store whose writes require a claim.

        `create_run`, `update_context`, `delete_run`, `upsert_step` and `commit_step`, of any run,
        check the claim in the transaction of the write. They raise `ClaimLostError`, and change
        nothing, once the claimed run was claimed again, released or deleted. With an expired
        claim that no other owner took over, they still write. All other methods are unaffected.

        The view is open while the store is; opening and closing the view does nothing.
        """


class StoreView(WorkflowStore):
    """A view of a store. It is open while the store is; `open` and `close` do nothing."""

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""
