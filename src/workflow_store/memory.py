"""A store in the memory of the process: the twin that answers like the others."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from . import json_codec
from .errors import ClaimLostError, RunNotFoundError, StoreClosedError
from .pagination import PageRequest, Position
from .state import JsonValue, RunSummary, TaskStatus, WorkflowExecutionState, WorkflowStepState
from .store import ResumableWorkflowStore, RunClaim, RunPage, RunSnapshot, StoreView, WaitingStep
from .validation import (
    MAX_BATCH,
    MAX_LIMIT,
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
    """A step as its wire form, beside what is asked of it without reading that.

    `number` is its place among all steps of the store, by their first insertion.
    """

    number: int
    text: str
    status: TaskStatus
    wait_task_id: str | None

    def state(self) -> WorkflowStepState:
        return WorkflowStepState.model_validate_json(self.text)


@dataclass
class _Run:
    """A run, its JSON values as text, and what belongs to it."""

    summary: RunSummary
    values: dict[str, str]
    steps: dict[str, _Step] = field(default_factory=dict)
    claim: RunClaim | None = None

    def state(self) -> WorkflowExecutionState:
        plain = {name: getattr(self.summary, name) for name in _PLAIN}
        values = {name: json_codec.decode_stored(text) for name, text in self.values.items()}
        return WorkflowExecutionState(**plain, **values)

    def counted(self) -> RunSummary:
        counts = Counter(step.status for step in self.steps.values())
        return self.summary.model_copy(update={"step_counts": counts})

    @property
    def place(self) -> Position:
        return self.summary.created_at, self.summary.run_task_id

    @property
    def has_ended(self) -> bool:
        return all(step.status.is_terminal for step in self.steps.values())

    def is_asked_for(self, listing: PageRequest) -> bool:
        created_at = self.summary.created_at
        return (
            (listing.after is None or self.place < listing.after)
            and (listing.created_after is None or created_at > listing.created_after)
            and (listing.created_before is None or created_at < listing.created_before)
            and all(
                getattr(self.summary, name) == value for name, value in listing.identifiers.items()
            )
            and (
                listing.step_status is None
                or any(step.status is listing.step_status for step in self.steps.values())
            )
        )


@dataclass
class _Contents:
    """What a store and the views of it have in common. The counters never go back."""

    runs: dict[str, _Run] = field(default_factory=dict)
    step_numbers: Iterator[int] = field(default_factory=itertools.count)
    tokens: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    is_open: bool = False


class InMemoryWorkflowStore(ResumableWorkflowStore):
    """Keeps runs in process memory: for tests, and for runs that may be lost.

    It is empty when it is opened and when it was closed. JSON values are kept as text, so
    that the store and its callers never share an object. No method waits for anything,
    which makes each of them atomic. Leases go by the clock of the process.
    """

    def __init__(self) -> None:
        self._contents = _Contents()

    # -- life ---------------------------------------------------------------------------

    async def open(self) -> None:
        self._contents.is_open = True

    async def close(self) -> None:
        self._contents.is_open = False
        self._contents.runs.clear()

    # -- runs ---------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        self._check_open()
        run = validated_run(state)
        summary = RunSummary(**{name: getattr(run, name) for name in _PLAIN})
        values = {name: json_codec.encode_stored(getattr(run, name), field=name) for name in _JSON}
        self._check_fence()
        found = self._contents.runs.get(run.run_task_id)
        if found is None:
            self._contents.runs[run.run_task_id] = _Run(summary, values)
        else:
            found.summary, found.values = summary, values

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

    # -- steps --------------------------------------------------------------------------

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

    # -- resume -------------------------------------------------------------------------

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

    # -- look ---------------------------------------------------------------------------

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
        self._check_open()
        listing = PageRequest.validate(
            agent_id=agent_id,
            thread_id=thread_id,
            user_id=user_id,
            workspace_id=workspace_id,
            step_status=step_status,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
            cursor=cursor,
        )
        asked_for = (run for run in self._contents.runs.values() if run.is_asked_for(listing))
        # One more than the page has tells whether there is a next one.
        newest = heapq.nlargest(listing.limit + 1, asked_for, key=lambda run: run.place)
        page = newest[: listing.limit]
        return RunPage(
            [run.counted() for run in page],
            listing.cursor(page[-1].place) if len(newest) > listing.limit else None,
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

    # -- clean up -----------------------------------------------------------------------

    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        self._check_open()
        created_before = validated_time(created_before, name="created_before")
        validated_number(batch_size, name="batch_size", most=MAX_BATCH)
        old = [
            run_task_id
            for run_task_id, run in self._contents.runs.items()
            if run.summary.created_at < created_before and (run.has_ended or not only_terminal)
        ]
        for run_task_id in old:
            del self._contents.runs[run_task_id]
        return len(old)

    # -- share --------------------------------------------------------------------------

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
        return self._give(run, owner, lease_s, now)

    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        self._check_open()
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        limit = validated_number(limit, name="limit", most=MAX_LIMIT)
        now = datetime.now(UTC)
        lapsed = [
            (run.claim.expires_at, run.claim.token, run)
            for run in self._contents.runs.values()
            if run.claim is not None and run.claim.expires_at <= now
        ]
        return [self._give(run, owner, lease_s, now) for *_, run in heapq.nsmallest(limit, lapsed)]

    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        self._check_open()
        claim = validated_claim(claim)
        run = self._claimed(claim)
        if run is None:
            raise ClaimLostError(claim.run_task_id, claim.token)
        run.claim = claim._replace(expires_at=_lapse(datetime.now(UTC), claim.lease_s))
        return run.claim

    async def release_claim(self, claim: RunClaim) -> None:
        self._check_open()
        run = self._claimed(validated_claim(claim))
        if run is not None:
            run.claim = None

    def fenced(self, claim: RunClaim) -> ResumableWorkflowStore:
        return _FencedView(self._contents, validated_claim(claim))

    # -- what these are made of ---------------------------------------------------------

    def _check_open(self) -> None:
        if not self._contents.is_open:
            raise StoreClosedError

    def _check_fence(self) -> None:
        """Refuse a write. Every one comes here, when its arguments are known to be good."""

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
        old = run.steps.get(step.step_id)
        number = next(self._contents.step_numbers) if old is None else old.number
        # A key that a dict has already keeps its place.
        run.steps[step.step_id] = _Step(number, text, step.status, step.wait_task_id)

    def _put_context(self, run: _Run, text: str) -> None:
        run.values["context"] = text
        run.summary.updated_at = datetime.now(UTC)

    def _claimed(self, claim: RunClaim) -> _Run | None:
        """Give the run of a claim, None where the claim is lost."""
        run = self._contents.runs.get(claim.run_task_id)
        held = run is not None and run.claim is not None and run.claim.token == claim.token
        return run if held else None

    def _give(self, run: _Run, owner: str, lease_s: float, now: datetime) -> RunClaim:
        run.claim = RunClaim(
            run.summary.run_task_id,
            owner,
            next(self._contents.tokens),
            lease_s,
            _lapse(now, lease_s),
        )
        return run.claim


class _FencedView(StoreView, InMemoryWorkflowStore):
    """The same store, whose writes need a claim."""

    def __init__(self, contents: _Contents, claim: RunClaim) -> None:
        self._contents = contents
        self._claim = claim

    def _check_fence(self) -> None:
        if self._claimed(self._claim) is None:
            raise ClaimLostError(self._claim.run_task_id, self._claim.token)


def _lapse(now: datetime, lease_s: float) -> datetime:
    return now + timedelta(seconds=lease_s)
