"""Sample runs for the tests of the rendering."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from workflow_store import RunSnapshot, WorkflowStepState
from workflow_store.testing import a_run, a_step

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = BEGIN + timedelta(seconds=100)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def snapshot(*steps: WorkflowStepState, **fields: Any) -> RunSnapshot:
    fields = {"created_at": BEGIN, "updated_at": BEGIN, **fields}
    return RunSnapshot(a_run(**fields), list(steps))


def defined(**needs: Any) -> dict[str, Any]:
    """Return a definition with these steps and their dependencies."""
    return {"steps": [{"id": name, "depends_on": need} for name, need in needs.items()]}


def done(step_id: str, start: float = 0, end: float = 1, **fields: Any) -> WorkflowStepState:
    return a_step(step_id, status="completed", started_at=at(start), completed_at=at(end), **fields)
