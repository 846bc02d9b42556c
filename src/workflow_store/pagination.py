"""PageRequest runs page by page: what is asked for, and where a page ends.

A cursor is opaque to callers: Base64 of JSON with the age and the id of the last run of a
page, and a digest of the filters, with which a cursor of other filters is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from .errors import InvalidStateError
from .state import TaskStatus
from .validation import MAX_LIMIT, validated_identifier, validated_number, validated_time

__all__ = ["IDENTIFIERS", "PageRequest", "Position", "RunFilters"]

IDENTIFIERS = ("agent_id", "thread_id", "user_id", "workspace_id")
"""The fields of a run by which a listing can be filtered, each by one exact value."""

_VERSION = 1

Position = tuple[datetime, str]
"""Where a run stands in a listing: when it was created, and its id."""


class RunFilters(TypedDict, total=False):
    """The filters of `list_runs`."""

    agent_id: str | None
    thread_id: str | None
    user_id: str | None
    workspace_id: str | None
    step_status: TaskStatus | None
    created_after: datetime | None
    created_before: datetime | None


@dataclass(frozen=True)
class PageRequest:
    """A checked request for a page.

    Attributes:
        identifiers: the values of `IDENTIFIERS` that are asked for.
        step_status: at least one step must be in it.
        created_after: the run must be younger than this.
        created_before: the run must be older than this.
        limit: how many runs a page has at most.
        after: the last run of the page before.
    """

    identifiers: Mapping[str, str]
    step_status: TaskStatus | None
    created_after: datetime | None
    created_before: datetime | None
    limit: int
    after: Position | None

    @classmethod
    def validate(
        cls,
        *,
        limit: Any,
        cursor: Any,
        step_status: Any = None,
        created_after: Any = None,
        created_before: Any = None,
        **identifiers: Any,
    ) -> PageRequest:
        """Check the arguments of `list_runs`.

        Raises:
            InvalidStateError: one of them breaks the rules.
        """
        given = {
            name: validated_identifier(value, name=name)
            for name, value in identifiers.items()
            if value is not None
        }
        listing = cls(
            identifiers=given,
            step_status=None if step_status is None else _status(step_status),
            created_after=(
                None
                if created_after is None
                else validated_time(created_after, name="created_after")
            ),
            created_before=(
                None
                if created_before is None
                else validated_time(created_before, name="created_before")
            ),
            limit=validated_number(limit, name="limit", most=MAX_LIMIT),
            after=None,
        )
        if cursor is None:
            return listing
        return cls(**{**vars(listing), "after": listing._read_cursor(cursor)})

    def cursor(self, last: Position) -> str:
        """Give the cursor of the page that begins after a run."""
        created_at, run_task_id = last
        parts = [_VERSION, self._digest(), created_at.isoformat(), run_task_id]
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _read_cursor(self, cursor: Any) -> Position:
        try:
            text = base64.b64decode(
                cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
            )
            version, digest, created_at, run_task_id = json.loads(text)
            place = (datetime.fromisoformat(created_at), validated_identifier(run_task_id, name=""))
            if version != _VERSION or place[0].tzinfo is not UTC:
                raise ValueError  # noqa: TRY301 - as all else that is no cursor
        except (TypeError, ValueError, RecursionError):
            raise InvalidStateError(
                "cursor: is not one that `list_runs` gave; begin again without a cursor"
            ) from None
        if digest != self._digest():
            raise InvalidStateError(
                "cursor: was given for other filters; use it with those, or begin again without"
            )
        return place

    def _digest(self) -> str:
        filters = [
            sorted(self.identifiers.items()),
            self.step_status,
            self.created_after and self.created_after.isoformat(),
            self.created_before and self.created_before.isoformat(),
        ]
        return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]


def _status(value: Any) -> TaskStatus:
    try:
        return TaskStatus(value)
    except ValueError:
        raise InvalidStateError(f"step_status: must be one of {', '.join(TaskStatus)}") from None
