"""The calls of a history, and the sequential specification of a run.

A run with its steps and its claim is one object: a delete, `commit_step` and a fence concern
several of its rows at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple

__all__ = ["CHANGES", "Kind", "Model", "Operation", "Outcome", "State", "Written"]


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    NO_RUN = "RunNotFoundError"
    CLAIM_LOST = "ClaimLostError"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """What a call does to a run."""

    CREATE = "create_run"
    CONTEXT = "update_context"
    DELETE = "delete_run"
    STEP = "upsert_step"
    COMMIT = "commit_step"
    GET_RUN = "get_run"
    GET_STEP = "get_step"
    LIST_STEPS = "list_steps"
    LOAD = "load_run"
    SUMMARY = "list_runs"
    WAITING = "find_waiting_step"
    PURGE = "purge_runs"
    CLAIM = "claim_run"
    TAKE = "claim_abandoned_runs"
    RENEW = "renew_claim"
    RELEASE = "release_claim"
    NOTHING = "nothing"


WRITES = frozenset({Kind.CREATE, Kind.CONTEXT, Kind.DELETE, Kind.STEP, Kind.COMMIT})
CHANGES = WRITES | {Kind.PURGE, Kind.CLAIM, Kind.TAKE, Kind.RENEW, Kind.RELEASE}


@dataclass(slots=True)
class Operation:
    """A call, as far as it concerns one run.

    Attributes:
        store: the store object.
        called, ended: numbers that order the begins and ends of all calls.
        called_at, ended_at: their times, by the clock of the server.
        value: the number of what is written.
        owner: of a claim.
        lease_s: of a claim.
        token: of the claim that a write is fenced with, or that is renewed or released.
        answer: what the call returned.
        is_optional: whether it may have had no effect on this run.
    """

    kind: Kind
    run: str
    store: str
    called: int
    called_at: float
    step: str = ""
    value: int = 0
    owner: str = ""
    lease_s: float = 0.0
    token: int | None = None
    ended: float = inf
    ended_at: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    answer: Any = None
    is_optional: bool = False

    @property
    def is_read(self) -> bool:
        """Whether the call changes nothing, whatever it meets."""
        return self.kind not in CHANGES or self.outcome in {Outcome.NO_RUN, Outcome.CLAIM_LOST}

    def __str__(self) -> str:
        details = [
            f"{name}={value!r}"
            for name in ("step", "value", "owner", "lease_s", "token")
            if (value := getattr(self, name))
        ]
        return (
            f"{self.called:4} to {self.ended:4}  {self.called_at:9.4f} to {self.ended_at:9.4f}  "
            f"{self.store}: {self.kind.value}({', '.join([self.run, *details])}) "
            f"{self.outcome.value} {self.answer if self.answer is not None else ''}"
        )


class Written(NamedTuple):
    """What a number stands for: the status of the step and whether it has ended.

    Attributes:
        status: of the step.
        is_terminal: whether that status is.
        created_at: of the run.
    """

    status: str
    is_terminal: bool
    created_at: datetime


class Claim(NamedTuple):
    """A claim, whose lease ends at a time between two bounds."""

    token: int
    owner: str
    earliest_end: float
    latest_end: float


class State(NamedTuple):
    """A run: the numbers of its last creation and context, and of its steps in their order."""

    run: tuple[int, int] | None = None
    steps: tuple[tuple[str, int], ...] = ()
    claim: Claim | None = None
    last_token: int = 0
    deletion: tuple[int, float] | None = None
    """The token and the end of the fenced call that deleted it."""


@dataclass
class Model:
    """The sequential specification.

    Attributes:
        written: what the numbers stand for.
    """

    written: dict[int, Written]

    def after(self, operation: Operation, state: State) -> State | None:
        """Return the state after a call with its answer, or None if it had another."""
        if operation.kind in WRITES:
            return self._after_write(operation, state)
        if operation.kind in {Kind.CLAIM, Kind.TAKE}:
            return self._after_claim(operation, state)
        if operation.kind in {Kind.RENEW, Kind.RELEASE}:
            return self._after_renewal(operation, state)
        if operation.kind is Kind.PURGE:
            return State(last_token=state.last_token) if self._may_purge(operation, state) else None
        return state if self._read(operation, state) == operation.answer else None

    def _after_write(self, operation: Operation, state: State) -> State | None:
        kind, outcome, value = operation.kind, operation.outcome, operation.value
        lost = operation.token is not None and not _holds(state, operation.token)
        if lost and kind is Kind.DELETE and outcome is Outcome.ANSWERED and state.deletion:
            # Two deletes at once with one claim are one row of a batch.
            deleted_by, ended = state.deletion
            return state if deleted_by == operation.token and operation.called < ended else None
        if lost or outcome is Outcome.CLAIM_LOST:
            return state if lost and outcome is Outcome.CLAIM_LOST else None
        if kind is Kind.CREATE:
            return state._replace(run=(value, value), deletion=None)
        if kind is Kind.DELETE:
            token = operation.token
            deletion = None if token is None else (token, operation.ended)
            return State(last_token=state.last_token, deletion=deletion)
        if state.run is None or outcome is Outcome.NO_RUN:
            return state if state.run is None and outcome is Outcome.NO_RUN else None
        if kind is not Kind.STEP:
            state = state._replace(run=(state.run[0], value))
        if kind is not Kind.CONTEXT:
            steps = dict(state.steps)
            steps[operation.step] = value  # an update keeps its position
            state = state._replace(steps=tuple(steps.items()))
        return state

    def _after_renewal(self, operation: Operation, state: State) -> State | None:
        holds = _holds(state, operation.token)
        if operation.kind is Kind.RELEASE:
            return state._replace(claim=None) if holds else state
        if state.claim is None or not holds or operation.outcome is Outcome.CLAIM_LOST:
            return state if not holds and operation.outcome is Outcome.CLAIM_LOST else None
        if operation.outcome is Outcome.UNKNOWN:
            return state._replace(claim=state.claim._replace(latest_end=inf))
        ends = operation.answer[1]
        return state._replace(claim=state.claim._replace(earliest_end=ends, latest_end=ends))

    def _after_claim(self, operation: Operation, state: State) -> State | None:
        if state.run is None or operation.outcome is Outcome.NO_RUN:
            missing = state.run is None and operation.outcome is Outcome.NO_RUN
            return state if missing else None
        is_known = operation.outcome is Outcome.ANSWERED
        if is_known and operation.answer is None:
            return state if _is_held_by_another(operation, state.claim) else None
        if not _may_claim(operation, state.claim):
            return None
        if not is_known:  # the caller never learns the token
            earliest = operation.called_at + operation.lease_s
            claim = Claim(_UNKNOWN, operation.owner, earliest, inf)
            return state._replace(claim=claim)
        token, ends = operation.answer
        if token <= state.last_token:
            return None
        return state._replace(claim=Claim(token, operation.owner, ends, ends), last_token=token)

    def _may_purge(self, operation: Operation, state: State) -> bool:
        return (
            state.run is not None
            and self.written[state.run[0]].created_at < operation.answer
            and all(self.written[value].is_terminal for _, value in state.steps)
        )

    def _read(self, operation: Operation, state: State) -> Any:
        match operation.kind:
            case Kind.GET_RUN:
                seen: Any = state.run
            case Kind.GET_STEP:
                seen = dict(state.steps).get(operation.step)
            case Kind.LIST_STEPS:
                seen = state.steps
            case Kind.LOAD:
                seen = state.run and (state.run, state.steps)
            case Kind.SUMMARY:
                counts = Counter(self.written[value].status for _, value in state.steps)
                seen = state.run and (state.run[0], dict(counts))
            case _:
                found = any(value == operation.value for _, value in state.steps)
                waits = found and not self.written[operation.value].is_terminal
                seen = operation.value if waits else None
        return seen


_PRECISION_S = 0.000_01
_UNKNOWN = 0
"""The token of a claim whose call was not answered. No call uses it."""


def _holds(state: State, token: int | None) -> bool:
    return state.claim is not None and state.claim.token == token


def _is_held_by_another(operation: Operation, claim: Claim | None) -> bool:
    return (
        claim is not None
        and claim.owner != operation.owner
        and claim.latest_end > operation.called_at
    )


def _may_claim(operation: Operation, claim: Claim | None) -> bool:
    """Return whether a claim may be granted at a moment of the call."""
    if claim is None:
        return operation.kind is Kind.CLAIM
    if claim.owner == operation.owner and operation.kind is Kind.CLAIM:
        return True
    is_known = operation.outcome is Outcome.ANSWERED
    return not is_known or claim.earliest_end <= operation.ended_at + _PRECISION_S
