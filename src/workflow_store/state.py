"""The state objects: what a store keeps of a run and of its steps.

Their wire form, the JSON that `model_dump_json()` gives and `model_validate_json()` takes,
is the one that the Rust crate `distri-workflow` reads and writes: snake_case names, times
in RFC 3339 with `Z`, optional fields left out where they are None.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    StrictStr,
    ValidationError,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from . import json_codec

__all__ = [
    "MAX_IDENTIFIER_BYTES",
    "TERMINAL",
    "JsonValue",
    "RunSummary",
    "TaskStatus",
    "WorkflowExecutionState",
    "WorkflowStepState",
    "trusted_step",
    "valid_identifier",
]

JsonValue: TypeAlias = Any
"""None, a bool, an int, a finite float, a string, or lists and string-keyed dicts of these.

`Any` to a type checker, because a precise recursive type would refuse a caller's
`dict[str, int]`: mutable containers are invariant. What it holds is checked by every write.
"""

MAX_IDENTIFIER_BYTES = 1024
"""Two of them, the key of a step, fit into one index entry of PostgreSQL (2,704 bytes)."""


class TaskStatus(StrEnum):
    """How far a step got."""

    PENDING = "pending"
    RUNNING = "running"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        """Whether the step has ended: completed, failed or canceled."""
        return self in TERMINAL


TERMINAL = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELED)
"""The statuses of a step that has ended."""


# -- field rules -----------------------------------------------------------------------


def valid_identifier(value: str) -> str:
    """Give a string that is an identifier, as a plain `str`.

    Raises:
        ValueError: it breaks the rules.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("an identifier must not hold surrogates") from None
    if not 0 < size <= MAX_IDENTIFIER_BYTES:
        raise ValueError(
            f"an identifier has 1 to {MAX_IDENTIFIER_BYTES} bytes in UTF-8, not {size}"
        )
    if "\0" in value:
        raise ValueError("an identifier must not hold NUL")
    return str.__str__(value)


def _error_text(value: str) -> str:
    if json_codec.has_surrogate_pair(value):
        raise ValueError("a high and a low surrogate stand side by side, which JSON cannot keep")
    return str.__str__(value)


# RFC 3339, section 5.6. datetime.fromisoformat takes more than that (week dates, no offset).
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _datetime_or_rfc3339(value: Any) -> Any:
    if isinstance(value, str):
        if _RFC_3339.fullmatch(value) is None:
            raise ValueError("a time is written as in RFC 3339, such as 2026-01-31T23:59:59Z")
        return datetime.fromisoformat(value.upper())  # cuts nanoseconds to microseconds
    if not isinstance(value, datetime):
        raise ValueError("a time is an aware datetime or a string as in RFC 3339")  # noqa: TRY004 - pydantic collects ValueError
    return value


def _to_utc(value: datetime) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("UTC cannot hold this time: its year would be 0 or 10000") from None
    # A subclass may carry more than a store can keep, such as nanoseconds.
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC
    )  # fmt: skip


def _json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object, that is, a dict")  # noqa: TRY004 - as above
    return value


def _now() -> datetime:
    return datetime.now(UTC)


Identifier = Annotated[StrictStr, AfterValidator(valid_identifier)]
"""A string of 1 to 1,024 bytes in UTF-8 without NUL and surrogates."""

ErrorText = Annotated[StrictStr, AfterValidator(_error_text)]
"""Any string but one with a high and a low surrogate side by side."""

Time = Annotated[AwareDatetime, BeforeValidator(_datetime_or_rfc3339), AfterValidator(_to_utc)]
"""An aware `datetime`, or text as in RFC 3339; kept in UTC, to the microsecond."""

JsonObject = Annotated[dict[str, Any], PlainValidator(_json_object)]
"""A dict with strings as its keys and JSON values."""


# -- models ----------------------------------------------------------------------------


class _State(BaseModel):
    model_config = ConfigDict(
        extra="forbid",  # a typo is an error, not a lost value
        hide_input_in_errors=True,  # a payload must not reach a log
        revalidate_instances="always",  # a write checks what was changed since construction
        validate_assignment=True,
    )

    _left_out_if_none: ClassVar[frozenset[str]] = frozenset()
    _times: ClassVar[frozenset[str]] = frozenset()

    def model_dump_json(self) -> str:  # type: ignore[override] # one wire form, so no options
        """Give the wire form, on one line.

        Raises:
            InvalidStateError: a field holds what is not JSON.
        """
        members = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None and name in self._left_out_if_none:
                continue
            if type(value) is TaskStatus:
                value = value.value
            elif type(value) is datetime and name in self._times:
                value = value.isoformat().replace("+00:00", "Z")
            members[name] = value
        return json_codec.encode_members(members)

    @classmethod
    def model_validate_json(  # type: ignore[override] # one wire form, so no options
        cls, json_data: str | bytes | bytearray
    ) -> Self:
        """Make a state of its wire form.

        Raises:
            pydantic.ValidationError: the text is not JSON, or not such a state.
        """
        try:
            text = json_data if isinstance(json_data, str) else json_data.decode()
            fields = json_codec.decode(text)
        except ValueError as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ValidationError.from_exception_data(
                cls.__name__,
                [{"type": PydanticCustomError("json_invalid", "{reason}", {"reason": reason}),
                  "loc": (), "input": None}],
                hide_input=True,
            ) from None  # fmt: skip
        return cls.model_validate(fields)

    @model_serializer(mode="wrap")
    def _leave_out_none(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if info.mode == "json":
            for name in self._left_out_if_none:
                if name in fields and fields[name] is None:
                    del fields[name]
        return fields


class WorkflowExecutionState(_State):
    """One run: what was started, with which definition, input and shared context.

    Attributes:
        run_task_id: the key of the run.
        agent_id: the agent that the workflow belongs to.
        thread_id: the conversation that it was started in.
        user_id: the user that it was started for.
        workspace_id: the workspace, where there are any.
        entry_point: the step or flow at which the run began, where there is a choice.
        definition: the workflow definition as it was when the run started.
        input: what the run was started with.
        context: the bag that its steps share.
        created_at: when the run was created; comes back in UTC.
        updated_at: when the run or its context was last written; comes back in UTC.

    An identifier is a string of 1 to 1,024 bytes in UTF-8 without NUL and surrogates. A
    `datetime` must be aware and is kept to the microsecond. JSON values are checked by the
    write that stores them.

    Raises:
        pydantic.ValidationError: a field breaks these rules or is unknown.
    """

    _left_out_if_none: ClassVar[frozenset[str]] = frozenset({"workspace_id", "entry_point"})
    _times: ClassVar[frozenset[str]] = frozenset({"created_at", "updated_at"})

    run_task_id: Identifier
    agent_id: Identifier
    thread_id: Identifier
    user_id: Identifier
    workspace_id: Identifier | None = None
    entry_point: Identifier | None = None
    definition: JsonObject
    input: JsonValue = Field(default_factory=dict)
    context: JsonValue = Field(default_factory=dict)
    created_at: Time = Field(default_factory=_now)
    updated_at: Time = Field(default_factory=_now)


class WorkflowStepState(_State):
    """One step of a run, keyed by the run's id and its own.

    Attributes:
        step_id: the step's name in the definition.
        status: how far the step got.
        result: what it gave; JSON null is None.
        error: why it failed: any string, NUL and lone surrogates included.
        started_at: when it started; comes back in UTC.
        completed_at: when it ended; comes back in UTC.
        wait_task_id: the id by which an outside party resumes a step that waits.

    The rules are those of `WorkflowExecutionState`.

    Raises:
        pydantic.ValidationError: a field breaks these rules or is unknown.
    """

    _left_out_if_none: ClassVar[frozenset[str]] = frozenset(
        {"result", "error", "started_at", "completed_at", "wait_task_id"}
    )
    _times: ClassVar[frozenset[str]] = frozenset({"started_at", "completed_at"})

    step_id: Identifier
    status: TaskStatus = TaskStatus.PENDING
    result: JsonValue = None
    error: ErrorText | None = None
    started_at: Time | None = None
    completed_at: Time | None = None
    wait_task_id: Identifier | None = None


class RunSummary(_State):
    """A run without its JSON values, as a listing gives it.

    Attributes:
        run_task_id: the key of the run; this and what follows is as in the run.
        step_counts: how many steps of the run are in each status; 0 for the others.
    """

    _left_out_if_none: ClassVar[frozenset[str]] = frozenset({"workspace_id", "entry_point"})
    _times: ClassVar[frozenset[str]] = frozenset({"created_at", "updated_at"})

    run_task_id: Identifier
    agent_id: Identifier
    thread_id: Identifier
    user_id: Identifier
    workspace_id: Identifier | None = None
    entry_point: Identifier | None = None
    created_at: Time
    updated_at: Time
    step_counts: Counter[TaskStatus] = Field(default_factory=Counter)


# -- what a store reads back -----------------------------------------------------------

_STEP_FIELDS = frozenset(WorkflowStepState.model_fields)
_NO_PRIVATE = WorkflowStepState(step_id="any").__pydantic_private__
_new = object.__new__
_set = object.__setattr__


def trusted_step(fields: dict[str, Any]) -> WorkflowStepState:
    """Make a step of all its fields, which were checked when they were stored.

    A third of what validation takes, and `model_construct` takes more than that; of a
    resume of a thousand steps this is a fifth.

    Args:
        fields: the fields by name; the dict becomes the step's own.
    """
    step: WorkflowStepState = _new(WorkflowStepState)
    _set(step, "__dict__", fields)
    # The slots of every pydantic model, as its `model_construct` sets them; versions differ in
    # what a model without private attributes has in the last one.
    _set(step, "__pydantic_fields_set__", set(_STEP_FIELDS))
    _set(step, "__pydantic_extra__", None)
    _set(step, "__pydantic_private__", None if _NO_PRIVATE is None else {})
    return step
