"""The in-memory store, which behaves like the SQL stores."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Unpack

from . import json_codec
from .errors import ClaimLostError, RunNotFoundError, StoreClosedError
from .pagination import PageRequest, Position, RunFilters
from .state import JsonValue, RunSummary, TaskStatus, WorkflowExecutionState, WorkflowStepState
from .store import ResumableWorkflowStore, RunClaim, RunPage, RunSnapshot, StoreView, WaitingStep
from .validation import (
    MAX_BATCH,
    MAX_LIMIT,
    check_event_loop,
    validated_claim,
    validated_identifier,
    validated_lease,
    validated_number,
    validated_run,
    validated_step,
    validated_time,
)

__all__ = ["InMemoryWorkflowStore"]

_JSON = ("definition", "input", "context")
_PLAIN = tuple(set(WorkflowExecutionState.model_fields).difference(_JSON))


class _Step(NamedTuple):
    """A step in its wire form, with the fields that are searched.

    `seq` numbers all steps of the store by their first insertion.
    """

    seq: int
    text: str
    status: TaskStatus
    wait_task_id: str | None

    def state(self) -> WorkflowStepState:
        return WorkflowStepState.model_validate_json(self.text)


@dataclass
class _Run:
    """A run, with its JSON values as text, its steps and its claim."""

    summary: RunSummary
    values: dict[str, str]
    steps: dict[str, _Step] = field(default_factory=dict)
    claim: RunClaim | None = None

    def state(self) -> WorkflowExecutionState:
        plain = {name: getattr(self.summary, name) for name in _PLAIN}
        values = {name: json_codec.decode_stored(text) for name, text in self.values.items()}
        return WorkflowExecutionState(**plain, **values)

    def summary_with_counts(self) -> RunSummary:
        counts = Counter(step.status for step in self.steps.values())
        return self.summary.model_copy(update={"step_counts": counts})

    @property
    def position(self) -> Position:
        return self.summary.created_at, self.summary.run_task_id

    @property
    def has_ended(self) -> bool:
        return all(step.status.is_terminal for step in self.steps.values())

    def matches(self, request: PageRequest) -> bool:
        created_at = self.summary.created_at
        return (
            (request.after is None or self.position < request.after)
            and (request.created_after is None or created_at > request.created_after)
            and (request.created_before is None or created_at < request.created_before)
            and all(
                getattr(self.summary, name) == value for name, value in request.identifiers.items()
            )
            and (
                request.step_status is None
                or any(step.status is request.step_status for step in self.steps.values())
            )
        )


@dataclass
class _Contents:
    """The contents shared by a store and its views. The counters are never reset."""

    runs: dict[str, _Run] = field(default_factory=dict)
    step_seqs: Iterator[int] = field(default_factory=itertools.count)
    tokens: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    loop: asyncio.AbstractEventLoop | None = None


class InMemoryWorkflowStore(ResumableWorkflowStore):
    """Keeps runs in process memory: for tests, and for runs that may be lost.

    The store is empty when it is opened, and closing it discards all runs. JSON values are kept
    as text, so the store and its callers never share an object. No method awaits anything,
    which makes every call atomic. Leases use the clock of the process.
    """

    def __init__(self) -> None:
        self._contents = _Contents()

    # -- open and close ---------------------------------------------------------------

    async def open(self) -> None:
        if self._contents.loop is not None:
            self._check_open()
        self._contents.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        if self._contents.loop is not None:
            self._check_open()
        self._contents.loop = None
        self._contents.runs.clear()

    # -- runs -------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        self._check_open()
        run = validated_run(state)
        summary = RunSummary(**{name: getattr(run, name) for name in _PLAIN})
        values = {name: json_codec.encode_stored(getattr(run, name), field=name) for name in _JSON}
        self._check_fence()
        existing = self._contents.runs.get(run.run_task_id)
        if existing is None:
            self._contents.runs[run.run_task_id] = _Run(summary, values)
        else:
            existing.summary, existing.values = summary, values

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        run = self._look_up(run_task_id)
        return None if run is None else run.state()

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        self._check_open()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        text = json_codec.encode_stored(context, field="context")
        run = self._run_to_write(run_task_id)
        self._put_context(run, text)

    async def delete_run(self, run_task_id: str) -> None:
        self._check_open()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        self._check_fence()
        self._contents.runs.pop(run_task_id, None)

    # -- steps ------------------------------------------------------------------------

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        self._check_open()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        step = validated_step(step)
        text = step.model_dump_json()
        run = self._run_to_write(run_task_id)
        self._put_step(run, step, text)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        run = self._look_up(run_task_id)
        step_id = validated_identifier(step_id, name="step_id")
        step = None if run is None else run.steps.get(step_id)
        return None if step is None else step.state()

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        run = self._look_up(run_task_id)
        return [] if run is None else [step.state() for step in run.steps.values()]

    # -- resume -----------------------------------------------------------------------

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        run = self._look_up(run_task_id)
        if run is None:
            return None
        return RunSnapshot(run.state(), [step.state() for step in run.steps.values()])

    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        self._check_open()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        step = validated_step(step)
        step_text = step.model_dump_json()
        context_text = json_codec.encode_stored(context, field="context")
        run = self._run_to_write(run_task_id)
        self._put_step(run, step, step_text)
        self._put_context(run, context_text)

    # -- list and find ----------------------------------------------------------------

    async def list_runs(self, **filters: Unpack[RunFilters]) -> RunPage:
        self._check_open()
        request = PageRequest.validate(**filters)
        runs = (run for run in self._contents.runs.values() if run.matches(request))
        # One more than the page has: if it exists, there is a next page.
        newest = heapq.nlargest(request.limit + 1, runs, key=lambda run: run.position)
        page = newest[: request.limit]
        return RunPage(
            [run.summary_with_counts() for run in page],
            request.cursor(page[-1].position) if len(newest) > request.limit else None,
        )

    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        self._check_open()
        wait_task_id = validated_identifier(wait_task_id, name="wait_task_id")
        waiting = [
            (step, run_task_id)
            for run_task_id, run in self._contents.runs.items()
            for step in run.steps.values()
            if step.wait_task_id == wait_task_id and not step.status.is_terminal
        ]
        if not waiting:
            return None
        last, run_task_id = max(waiting)
        return WaitingStep(run_task_id, last.state())

    # -- delete old runs --------------------------------------------------------------

    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        self._check_open()
        created_before = validated_time(created_before, name="created_before")
        validated_number(batch_size, name="batch_size", most=MAX_BATCH)
        old_ids = [
            run_task_id
            for run_task_id, run in self._contents.runs.items()
            if run.summary.created_at < created_before and (run.has_ended or not only_terminal)
        ]
        for run_task_id in old_ids:
            del self._contents.runs[run_task_id]
        return len(old_ids)

    # -- claims -----------------------------------------------------------------------

    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        self._check_open()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        run = self._existing(run_task_id)
        now = datetime.now(UTC)
        if run.claim is not None and run.claim.owner != owner and run.claim.expires_at > now:
            return None
        return self._claim(run, owner, lease_s, now)

    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        self._check_open()
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        limit = validated_number(limit, name="limit", most=MAX_LIMIT)
        now = datetime.now(UTC)
        expired = [
            (run.claim.expires_at, run.claim.token, run)
            for run in self._contents.runs.values()
            if run.claim is not None and run.claim.expires_at <= now
        ]
        oldest = heapq.nsmallest(limit, expired)
        return [self._claim(run, owner, lease_s, now) for *_, run in oldest]

    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        self._check_open()
        claim = validated_claim(claim)
        run = self._claimed(claim)
        if run is None:
            raise ClaimLostError(claim.run_task_id, claim.token)
        run.claim = claim._replace(expires_at=_expiry(datetime.now(UTC), claim.lease_s))
        return run.claim

    async def release_claim(self, claim: RunClaim) -> None:
        self._check_open()
        run = self._claimed(validated_claim(claim))
        if run is not None:
            run.claim = None

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedView(self._contents, validated_claim(claim))

    # -- shared by the methods --------------------------------------------------------

    def _check_open(self) -> None:
        if self._contents.loop is None:
            raise StoreClosedError
        check_event_loop(self._contents.loop)

    def _check_fence(self) -> None:
        """Raise `ClaimLostError` in a fenced view. Called by every write after validation."""

    def _look_up(self, run_task_id: str) -> _Run | None:
        self._check_open()
        return self._contents.runs.get(validated_identifier(run_task_id, name="run_task_id"))

    def _existing(self, run_task_id: str) -> _Run:
        run = self._contents.runs.get(run_task_id)
        if run is None:
            raise RunNotFoundError(run_task_id)
        return run

    def _run_to_write(self, run_task_id: str) -> _Run:
        self._check_fence()
        return self._existing(run_task_id)

    def _put_step(self, run: _Run, step: WorkflowStepState, text: str) -> None:
        existing = run.steps.get(step.step_id)
        seq = next(self._contents.step_seqs) if existing is None else existing.seq
        # Replacing the value of a key keeps its position in the dict.
        run.steps[step.step_id] = _Step(seq, text, step.status, step.wait_task_id)

    def _put_context(self, run: _Run, text: str) -> None:
        run.values["context"] = text
        run.summary.updated_at = datetime.now(UTC)

    def _claimed(self, claim: RunClaim) -> _Run | None:
        """Return the run of a claim, or None if the claim is lost."""
        run = self._contents.runs.get(claim.run_task_id)
        holds = run is not None and run.claim is not None and run.claim.token == claim.token
        return run if holds else None

    def _claim(self, run: _Run, owner: str, lease_s: float, now: datetime) -> RunClaim:
        token, expires_at = next(self._contents.tokens), _expiry(now, lease_s)
        run.claim = RunClaim(run.summary.run_task_id, owner, token, lease_s, expires_at)
        return run.claim


class _FencedView(StoreView, InMemoryWorkflowStore):
    """A view of a store whose writes require a claim."""

    def __init__(self, contents: _Contents, claim: RunClaim) -> None:
        self._contents = contents
        self._fence = claim

    def _check_fence(self) -> None:
        if self._claimed(self._fence) is None:
            raise ClaimLostError(self._fence.run_task_id, self._fence.token)


def _expiry(now: datetime, lease_s: float) -> datetime:
    return now + timedelta(seconds=lease_s)
