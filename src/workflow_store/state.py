"""The state of runs and steps, and its wire form.

The wire form is the JSON that `model_dump_json()` returns and `model_validate_json()` accepts:
snake_case names, RFC 3339 times with `Z`, and no optional fields that are None. The Rust crate
`distri-workflow` reads and writes the same form.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from . import json_codec
from .fields import ErrorText, Identifier, JsonObject, Time

__all__ = [
    "TERMINAL", "JsonValue", "RunSummary", "TaskStatus", "WorkflowExecutionState",
    "WorkflowStepState", "valid_status",
]  # fmt: skip

JsonValue: TypeAlias = Any
"""None, a bool, an int, a finite float, a string, or lists and string-keyed dicts of these.

`Any` to type checkers, because a precise recursive type would reject a caller's
`dict[str, int]`: mutable containers are invariant. Every write validates the value.
"""


class TaskStatus(StrEnum):
    """The status of a step."""

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


_STATUSES: dict[str | None, TaskStatus] = {status.value: status for status in TaskStatus}


def valid_status(value: Any) -> TaskStatus:
    """Return a status.

    Raises:
        ValueError: the value is not a status, nor the text of one.
    """
    kind = type(value)
    if kind is TaskStatus:
        return value  # type: ignore[no-any-return]
    status = _STATUSES.get(value if kind is str else json_codec.plain_str(value))
    if status is None:
        raise ValueError(f"must be one of {', '.join(TaskStatus)}")
    return status


def _now() -> datetime:
    return datetime.now(UTC)


Status = Annotated[TaskStatus, BeforeValidator(valid_status)]
"""The status of a step, or its text."""


# -- models ----------------------------------------------------------------------------


class _State(BaseModel):
    model_config = ConfigDict(
        extra="forbid",  # a typo is an error, not a lost value
        hide_input_in_errors=True,  # errors are logged, and payloads must not be
        revalidate_instances="always",  # a JSON value may have been changed in place
        validate_assignment=True,
    )

    _omitted_if_none: ClassVar[frozenset[str]] = frozenset()
    _times: ClassVar[frozenset[str]] = frozenset()

    def model_dump_json(self) -> str:  # type: ignore[override] # one wire form, so no options
        """Return the wire form, on one line.

        Raises:
            InvalidStateError: a field is not JSON.
        """
        members = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None and name in self._omitted_if_none:
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
        """Return the state of a wire form.

        Raises:
            pydantic.ValidationError: the text is not JSON, or a field breaks the rules, is
                missing or is unknown.
        """
        data: Any = json_data
        try:
            text = json_codec.plain_str(data)
            fields = json_codec.decode(str(data, "utf-8") if text is None else text)
        except (TypeError, ValueError) as error:
            reason = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ValidationError.from_exception_data(
                cls.__name__,
                [{"type": PydanticCustomError("json_invalid", "{reason}", {"reason": reason}),
                  "loc": (), "input": None}],
                hide_input=True,
            ) from None  # fmt: skip
        return cls.model_validate(fields)

    @model_serializer(mode="wrap")
    def _omit_none(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if info.mode == "json":
            for name in self._omitted_if_none:
                if name in fields and fields[name] is None:
                    del fields[name]
        return fields


class WorkflowExecutionState(_State):
    """A run: what was started, with which definition, input and shared context.

    Identifiers are the application's own; a store only compares them. If an application has no
    notion of one that is required, it uses a constant, such as `"default"`.

    Attributes:
        run_task_id: the key of the run, unique within the store: the id by which the application
            knows the task that runs the workflow. Time-ordered ids, such as UUIDv7, are stored
            most efficiently.
        agent_id: the agent, service or pipeline that the workflow belongs to.
        thread_id: the conversation, request or job from which the run was started. Several runs
            may share it.
        user_id: the user on whose behalf the run was started.
        workspace_id: the workspace, team or tenant, if the application has any.
        entry_point: the entry of the definition at which the run started, if it has several.
        definition: the workflow definition, a snapshot taken when the run starts.
        input: the input with which the run was started.
        context: the value that its steps share.
        created_at: the time at which the run was created.
        updated_at: the time at which the run or its context was last written.

    An identifier is a string of 1 to 1,024 bytes in UTF-8 without NUL and surrogates. A time is
    an aware `datetime`; it is kept to the microsecond and returned in UTC. JSON values are
    validated by the write that stores them.

    Raises:
        pydantic.ValidationError: a field breaks these rules or is unknown.
    """

    _omitted_if_none: ClassVar[frozenset[str]] = frozenset({"workspace_id", "entry_point"})
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
    """A step of a run, keyed by the id of the run and its own.

    Attributes:
        step_id: the key of the step within its run, as a rule its id in the definition.
        status: the status of the step.
        result: the result of the step. JSON null is None.
        error: why the step failed: any string, including NUL and lone surrogates.
        started_at: the time at which the step started.
        completed_at: the time at which the step ended.
        wait_task_id: the id under which an outside party, such as a person who approves, answers
            a waiting step; see `find_waiting_step`. Should be unique within the store.

    The rules are those of `WorkflowExecutionState`.

    Raises:
        pydantic.ValidationError: a field breaks these rules or is unknown.
    """

    _omitted_if_none: ClassVar[frozenset[str]] = frozenset(
        {"result", "error", "started_at", "completed_at", "wait_task_id"}
    )
    _times: ClassVar[frozenset[str]] = frozenset({"started_at", "completed_at"})

    step_id: Identifier
    status: Status = TaskStatus.PENDING
    result: JsonValue = None
    error: ErrorText | None = None
    started_at: Time | None = None
    completed_at: Time | None = None
    wait_task_id: Identifier | None = None


class RunSummary(_State):
    """A run as listed by `list_runs`, without its JSON values.

    Attributes:
        run_task_id: the key of the run. This and the following fields are those of the run.
        step_counts: the number of steps by status, 0 for a status without steps.
    """

    _omitted_if_none: ClassVar[frozenset[str]] = frozenset({"workspace_id", "entry_point"})
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
