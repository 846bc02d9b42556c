"""What every store checks of its arguments, before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InvalidStateError
from .state import (
    MAX_IDENTIFIER_BYTES,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    valid_identifier,
)
from .store import RunClaim

__all__ = [
    "MAX_BATCH",
    "MAX_LEASE_S",
    "MAX_LIMIT",
    "validated_claim",
    "validated_identifier",
    "validated_lease",
    "validated_number",
    "validated_run",
    "validated_step",
    "validated_time",
]

MAX_LIMIT = 1_000
MAX_BATCH = 10_000
MAX_LEASE_S = 365 * 86_400.0

_StateT = TypeVar("_StateT", bound=BaseModel)

_STEP_FIELDS = frozenset(WorkflowStepState.model_fields)


def validated_identifier(value: str, *, name: str) -> str:
    """Give the identifier, a plain `str`.

    Raises:
        InvalidStateError: it breaks the rules for identifiers.
    """
    if not isinstance(value, str):
        raise InvalidStateError(f"{name}: must be a string, not {type(value).__qualname__}")
    try:
        return valid_identifier(value)
    except ValueError as error:
        raise InvalidStateError(f"{name}: {error}") from None


def validated_run(state: WorkflowExecutionState) -> WorkflowExecutionState:
    """Give a checked copy; its JSON values are the caller's own and not checked.

    Raises:
        InvalidStateError: not such a state, or a field was changed to break a rule.
    """
    return _checked(state, WorkflowExecutionState, name="state")


def validated_step(step: WorkflowStepState) -> WorkflowStepState:
    """Give a checked copy, or the step itself; its result is the caller's own and not checked.

    Raises:
        InvalidStateError: not such a state, or a field was changed to break a rule.
    """
    # Every write of a step comes here. What most steps look like takes a quarter of what
    # the model's own validation does; the rest is left to that.
    if type(step) is WorkflowStepState:
        fields = step.__dict__
        if (
            len(fields) == len(_STEP_FIELDS)
            and _is_plain_identifier(fields["step_id"])
            and type(fields["status"]) is TaskStatus
            and fields["error"] is None
            and _is_plain_time(fields["started_at"])
            and _is_plain_time(fields["completed_at"])
            and (fields["wait_task_id"] is None or _is_plain_identifier(fields["wait_task_id"]))
        ):
            return step
    return _checked(step, WorkflowStepState, name="step")


def _is_plain_identifier(value: Any) -> bool:
    return (
        type(value) is str
        and 0 < len(value) <= MAX_IDENTIFIER_BYTES
        and value.isascii()
        and "\0" not in value
    )


def _is_plain_time(value: Any) -> bool:
    return value is None or (type(value) is datetime and value.tzinfo is UTC)


def _checked(value: Any, model: type[_StateT], *, name: str) -> _StateT:
    if not isinstance(value, model):
        raise InvalidStateError(
            f"{name}: must be a {model.__name__}, not {type(value).__qualname__}"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or name}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise InvalidStateError(reasons) from error


def validated_number(value: Any, *, name: str, most: int) -> int:
    """Give a number from 1 to the most.

    Raises:
        InvalidStateError: it is none.
    """
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidStateError(f"{name}: must be a whole number from 1 to {most:,}")
    return value


def validated_lease(value: Any) -> float:
    """Give a lease, in seconds.

    Raises:
        InvalidStateError: it is no number, not positive, or longer than a year.
    """
    if type(value) not in {int, float} or not 0 < value <= MAX_LEASE_S:
        raise InvalidStateError(f"lease_s: must be more than 0 and at most {MAX_LEASE_S:,.0f}")
    return float(value)


def validated_time(value: Any, *, name: str) -> datetime:
    """Give an aware time, in UTC.

    Raises:
        InvalidStateError: it is none, or UTC cannot hold it.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidStateError(f"{name}: must be an aware datetime")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidStateError(f"{name}: UTC cannot hold this time") from None


_MAX_TOKEN = 2**63 - 1


def validated_claim(claim: Any) -> RunClaim:
    """Give a claim whose fields are such as a store gives them, but for `expires_at`.

    That one is what a store tells; it is never read.

    Raises:
        InvalidStateError: it is no `RunClaim`, or a field was changed to break a rule.
    """
    if not isinstance(claim, RunClaim):
        raise InvalidStateError(f"claim: must be a RunClaim, not {type(claim).__qualname__}")
    return claim._replace(
        run_task_id=validated_identifier(claim.run_task_id, name="claim.run_task_id"),
        owner=validated_identifier(claim.owner, name="claim.owner"),
        token=validated_number(claim.token, name="claim.token", most=_MAX_TOKEN),
        lease_s=validated_lease(claim.lease_s),
    )
