"""Argument validation shared by all stores, which happens before anything is written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InvalidStateError, WorkflowStoreError
from .state import (
    MAX_IDENTIFIER_BYTES,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    valid_identifier,
)
from .store import RunClaim

__all__ = [
    "MAX_BATCH", "MAX_LEASE_S", "MAX_LIMIT", "check_event_loop", "validated_claim",
    "validated_identifier", "validated_lease", "validated_number", "validated_run",
    "validated_step", "validated_time",
]  # fmt: skip

MAX_LIMIT = 1_000
MAX_BATCH = 10_000
MAX_LEASE_S = 365 * 86_400.0

_StateT = TypeVar("_StateT", bound=BaseModel)

_STEP_FIELDS = frozenset(WorkflowStepState.model_fields)


def check_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Check that a store is used in the event loop in which it was opened.

    Raises:
        WorkflowStoreError: another loop is running.
    """
    if loop is not asyncio.get_running_loop():
        raise WorkflowStoreError(
            "The store was opened in another event loop: open a store in each loop, and close it "
            "before the loop ends. In a process that was forked, open a new store."
        )


def validated_identifier(value: str, *, name: str) -> str:
    """Return an identifier as a plain `str`.

    Raises:
        InvalidStateError: the value breaks the rules for identifiers.
    """
    if not isinstance(value, str):
        raise InvalidStateError(f"{name}: must be a string, not {type(value).__qualname__}")
    try:
        return valid_identifier(value)
    except ValueError as error:
        raise InvalidStateError(f"{name}: {error}") from None


def validated_run(state: WorkflowExecutionState) -> WorkflowExecutionState:
    """Return a validated copy. It shares the JSON values, which are not validated.

    Raises:
        InvalidStateError: the value is not a run, or a field was changed to break a rule.
    """
    return _validated(state, WorkflowExecutionState, name="state")


def validated_step(step: WorkflowStepState) -> WorkflowStepState:
    """Return a validated copy, or the step itself. It shares the result, which is not validated.

    Raises:
        InvalidStateError: the value is not a step, or a field was changed to break a rule.
    """
    # Every write of a step calls this. Most steps are plain, and checking so takes a quarter
    # of the time of the model's own validation.
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
    return _validated(step, WorkflowStepState, name="step")


def _is_plain_identifier(value: Any) -> bool:
    return (
        type(value) is str
        and 0 < len(value) <= MAX_IDENTIFIER_BYTES
        and value.isascii()
        and "\0" not in value
    )


def _is_plain_time(value: Any) -> bool:
    return value is None or (type(value) is datetime and value.tzinfo is UTC)


def _validated(value: Any, model: type[_StateT], *, name: str) -> _StateT:
    if not isinstance(value, model):
        raise InvalidStateError(
            f"{name}: must be a {model.__name__}, not {type(value).__qualname__}"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, details['loc'])) or name}: {details['msg']}"
            for details in error.errors(include_input=False, include_url=False)
        )
        raise InvalidStateError(reasons) from error


def validated_number(value: Any, *, name: str, most: int) -> int:
    """Return an integer from 1 to `most`.

    Raises:
        InvalidStateError: the value is not an integer or is out of range.
    """
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidStateError(f"{name}: must be an integer from 1 to {most:,}")
    return value


def validated_lease(value: Any) -> float:
    """Return a lease in seconds.

    Raises:
        InvalidStateError: the value is not a number, not positive, or longer than a year.
    """
    if type(value) not in {int, float} or not 0 < value <= MAX_LEASE_S:
        raise InvalidStateError(f"lease_s: must be greater than 0 and at most {MAX_LEASE_S:,.0f}")
    return float(value)


def validated_time(value: Any, *, name: str) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        InvalidStateError: the value is not an aware datetime, or UTC cannot represent it.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidStateError(f"{name}: must be an aware datetime, such as datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidStateError(f"{name}: out of range when converted to UTC") from None


_MAX_TOKEN = 2**63 - 1


def validated_claim(claim: Any) -> RunClaim:
    """Return a caller's claim. `expires_at` is informational and is not validated.

    Raises:
        InvalidStateError: the value is not a `RunClaim`, or a field was changed to break a rule.
    """
    if not isinstance(claim, RunClaim):
        raise InvalidStateError(f"claim: must be a RunClaim, not {type(claim).__qualname__}")
    return claim._replace(
        run_task_id=validated_identifier(claim.run_task_id, name="claim.run_task_id"),
        owner=validated_identifier(claim.owner, name="claim.owner"),
        token=validated_number(claim.token, name="claim.token", most=_MAX_TOKEN),
        lease_s=validated_lease(claim.lease_s),
    )
