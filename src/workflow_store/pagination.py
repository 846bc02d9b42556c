"""Filters and cursors of `list_runs`.

A cursor is opaque to callers. It is Base64 of JSON with the creation time and the id of the last
run of a page, and a digest of the filters, so that a cursor is rejected with other filters.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeVar, Unpack

from .errors import InvalidStateError
from .json_codec import plain_str
from .state import TaskStatus
from .validation import (
    MAX_LIMIT,
    validated_identifier,
    validated_number,
    validated_status,
    validated_time,
)

__all__ = ["PageRequest", "Position", "RunFilters"]

_VERSION = 1
_MAX_CURSOR = 10_000
"""Characters; that of the longest identifier, with each byte as an escape in Base64, has 8,300."""
_T = TypeVar("_T")
_IDENTIFIERS = ("agent_id", "thread_id", "user_id", "workspace_id")

Position = tuple[datetime, str]
"""The position of a run in a listing: its creation time and its id."""


class RunFilters(TypedDict, total=False):
    """The arguments of `ResumableWorkflowStore.list_runs`, which documents them."""

    agent_id: str | None
    thread_id: str | None
    user_id: str | None
    workspace_id: str | None
    step_status: TaskStatus | None
    created_after: datetime | None
    created_before: datetime | None
    limit: int
    cursor: str | None


@dataclass(frozen=True)
class PageRequest:
    """The validated arguments of `list_runs`.

    Attributes:
        identifiers: the identifiers that a run must have, by the names of their fields.
        step_status: the status that at least one step must have.
        created_after: the run must have been created later.
        created_before: the run must have been created earlier.
        limit: the maximum number of runs on the page.
        after: the position of the last run of the previous page.
    """

    identifiers: Mapping[str, str]
    step_status: TaskStatus | None
    created_after: datetime | None
    created_before: datetime | None
    limit: int
    after: Position | None

    @classmethod
    def validate(cls, **filters: Unpack[RunFilters]) -> PageRequest:
        """Validate the arguments of `list_runs`.

        Raises:
            InvalidStateError: an argument breaks the rules.
        """
        values: dict[str, Any] = {**filters}
        if unknown := values.keys() - RunFilters.__annotations__.keys():
            raise TypeError(f"list_runs() got an unexpected keyword argument {min(unknown)!r}")
        request = cls(
            identifiers={
                name: validated_identifier(values[name], name=name)
                for name in _IDENTIFIERS
                if values.get(name) is not None
            },
            step_status=_optional(validated_status, values, "step_status"),
            created_after=_optional(validated_time, values, "created_after"),
            created_before=_optional(validated_time, values, "created_before"),
            limit=validated_number(values.get("limit", 50), name="limit", most=MAX_LIMIT),
            after=None,
        )
        cursor = values.get("cursor")
        return request if cursor is None else replace(request, after=request._read_cursor(cursor))

    def cursor(self, last: Position) -> str:
        """Return the cursor of the page after a run."""
        created_at, run_task_id = last
        parts = [_VERSION, self._digest(), created_at.isoformat(), run_task_id]
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _read_cursor(self, cursor: Any) -> Position:
        try:
            encoded = plain_str(cursor)
            if encoded is None or len(encoded) > _MAX_CURSOR:
                raise ValueError  # noqa: TRY301 - as any other invalid cursor
            text = base64.b64decode(
                encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True
            )
            version, digest, created_at, run_task_id = json.loads(text)
            position = (
                datetime.fromisoformat(created_at),
                validated_identifier(run_task_id, name="run_task_id"),
            )
            if version != _VERSION or position[0].tzinfo is not UTC:
                raise ValueError  # noqa: TRY301 - as any other invalid cursor
        except (TypeError, ValueError, RecursionError):
            raise InvalidStateError(
                "cursor: not a cursor returned by `list_runs`; start over without a cursor"
            ) from None
        if digest != self._digest():
            raise InvalidStateError(
                "cursor: was created with different filters; pass the same filters, or start over "
                "without a cursor"
            )
        return position

    def _digest(self) -> str:
        filters = [
            sorted(self.identifiers.items()),
            self.step_status,
            self.created_after and self.created_after.isoformat(),
            self.created_before and self.created_before.isoformat(),
        ]
        return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]


def _optional(rule: Callable[..., _T], values: Mapping[str, Any], name: str) -> _T | None:
    value = values.get(name)
    return None if value is None else rule(value, name=name)
