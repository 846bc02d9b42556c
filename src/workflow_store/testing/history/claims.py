"""What the claim methods do to a run, and the errors of a fence."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .records import Operation
from .state import ANY, CLAIM, EXISTS, NO_TOKEN, UNKNOWN_TOKEN, Call, Change, State

__all__ = ["CLAIM_METHODS", "claim_call", "claim_lost", "fenced", "own_fence", "unknown_claim"]

TOLERANCE_NS: Final = 50_000_000
"""Between the clock of the server and that of the records."""

CLAIM_METHODS = frozenset({"claim_run", "claim_abandoned_runs", "renew_claim", "release_claim"})


def own_fence(operation: Operation) -> int:
    """Return the token of the claim that a call needs on its own run, 0 if it needs none."""
    fence = operation.fence
    return NO_TOKEN if fence is None or fence.run != operation.run else fence.token


def fenced(operation: Operation, effect: Change) -> Change:
    """Return an effect that needs the claim of the call."""
    token = own_fence(operation)
    if not token:
        return effect
    return lambda state, now: effect(state, now) if state.token in {token, ANY} else None


def claim_lost(operation: Operation) -> Call:
    """Return a call that raised `ClaimLostError`."""
    claim = operation.arguments.get("claim")
    token = own_fence(operation) if claim is None else claim["token"]
    return Call(
        operation,
        # The claim of another run is not part of the state of this one.
        lambda state, _: state if not token or state.token != token else None,
        lambda state: state._replace(token=UNKNOWN_TOKEN, owner="", expires_at=ANY),
        CLAIM, 0,
    )  # fmt: skip


def claim_call(operation: Operation, began_at: int, *, steady_clock: bool) -> Call:
    """Return a call of a claim method that returned.

    Args:
        operation: the record.
        began_at: when it began, by the server's clock, or `ANY`.
        steady_clock: whether the ends of leases can be compared.
    """
    if not steady_clock and isinstance(operation.answer, dict):
        operation = replace(operation, answer={**operation.answer, "expires_at": ANY})
    match operation.method:
        case "renew_claim":
            return _renewed(operation)
        case "release_claim":
            return Call(operation, _release(operation), lambda state: state, CLAIM, CLAIM)
    return _held(operation, began_at) if operation.answer is None else _granted(operation)


def _held(operation: Operation, began_at: int) -> Call:
    """A claim that was not granted, since another owner held the run."""
    owner = operation.arguments["owner"]

    def apply(state: State, _: int) -> State | None:
        if state.token == ANY:
            return state
        is_over = ANY not in {began_at, state.expires_at} and (
            state.expires_at + TOLERANCE_NS < began_at
        )
        return None if state.token == NO_TOKEN or state.owner == owner or is_over else state

    def adopt(state: State) -> State:
        return state.existing()._replace(token=ANY, owner="", expires_at=ANY)

    return Call(operation, apply, adopt, EXISTS | CLAIM, 0)


def _granted(operation: Operation) -> Call:
    owner = operation.arguments["owner"]
    token, expires_at = operation.answer["token"], operation.answer["expires_at"]
    granted_at = expires_at - round(operation.answer["lease_s"] * 1e9)
    only_abandoned = operation.method == "claim_abandoned_runs"

    def apply(state: State, _: int) -> State | None:
        if not state.exists or token <= state.last_token:
            return None
        if state.token == NO_TOKEN:
            return None if only_abandoned else grant(state)
        is_own = state.owner == owner and not only_abandoned
        # The times of a server are in microseconds.
        is_over = ANY in {state.token, state.expires_at} or granted_at + 1000 >= state.expires_at
        return grant(state) if is_own or is_over else None

    def grant(state: State) -> State:
        last = max(token, state.last_token)
        return state._replace(token=token, owner=owner, expires_at=expires_at, last_token=last)

    return Call(
        operation, apply, lambda state: grant(state.existing()), EXISTS | CLAIM, CLAIM
    )  # fmt: skip


def _renewed(operation: Operation) -> Call:
    token, expires_at = operation.answer["token"], operation.answer["expires_at"]

    def renew(state: State, _: int = 0) -> State | None:
        return state._replace(expires_at=expires_at) if state.token in {token, ANY} else None

    def adopt(state: State) -> State:
        return state.existing()._replace(token=token, expires_at=expires_at)

    return Call(operation, renew, adopt, CLAIM, CLAIM)


def _release(operation: Operation) -> Change:
    token = operation.arguments["claim"]["token"]

    def release(state: State, _: int) -> State:
        if state.token != token:
            return state
        return state._replace(token=NO_TOKEN, owner="", expires_at=ANY)

    return release


def unknown_claim(operation: Operation) -> Change:
    """Return the effect of a call of a claim method whose outcome is unknown."""
    if operation.method == "release_claim":
        return _release(operation)
    if operation.method == "renew_claim":
        token = operation.arguments["claim"]["token"]
        return lambda state, _: state._replace(expires_at=ANY) if state.token == token else None
    owner = operation.arguments["owner"]
    only_abandoned = operation.method == "claim_abandoned_runs"

    def claim(state: State, now: int) -> State | None:
        if not state.exists or (only_abandoned and state.token == NO_TOKEN):
            return None
        is_own = state.owner == owner and not only_abandoned
        is_over = ANY in {state.token, state.expires_at, now} or (
            now + TOLERANCE_NS >= state.expires_at
        )
        if state.token == NO_TOKEN or is_own or is_over:
            return state._replace(token=UNKNOWN_TOKEN, owner=owner, expires_at=ANY)
        return None

    return claim
