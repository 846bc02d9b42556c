"""Times and identifiers, up to their bounds, on all stores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from support.all_stores import AllStores, answer, exact
from support.strategies import EPOCH, bounded, identifiers_of, in_utc, of_size, run, times
from workflow_store import (
    InvalidStateError,
    WorkflowStepState,
)


@given(created=times, updated=times, started=times, completed=times)
@bounded(60)
def test_aware_times_come_back_in_utc_to_the_microsecond_or_are_refused_at_once(
    all_stores: AllStores,
    created: datetime,
    updated: datetime,
    started: datetime,
    completed: datetime,
) -> None:
    """Any offset, from the year 1 to 9999; a time that UTC cannot represent is no valid state."""
    if None in {in_utc(created), in_utc(updated)}:
        with pytest.raises(ValidationError):
            run(created_at=created, updated_at=updated)
    else:
        state = run(created_at=created, updated_at=updated)
        all_stores.returns(lambda store: store.create_run(state))
        found: Any = all_stores.returns(lambda store: store.get_run("r"))
        assert exact(found.created_at) == exact(in_utc(created))
        assert exact(found.updated_at) == exact(in_utc(updated))
    if None in {in_utc(started), in_utc(completed)}:
        with pytest.raises(ValidationError):
            WorkflowStepState(step_id="s", started_at=started, completed_at=completed)
    else:
        step = WorkflowStepState(step_id="s", started_at=started, completed_at=completed)
        all_stores.returns(lambda store: store.create_run(run(created_at=EPOCH, updated_at=EPOCH)))
        all_stores.returns(lambda store: store.upsert_step("r", step))
        found = all_stores.returns(lambda store: store.get_step("r", "s"))
        assert exact(found.started_at) == exact(in_utc(started))
        assert exact(found.completed_at) == exact(in_utc(completed))


@pytest.mark.parametrize(
    "utc", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_the_first_and_the_last_moment_of_all_are_kept(
    all_stores: AllStores, utc: datetime
) -> None:
    state = run(created_at=utc, updated_at=utc)
    step = WorkflowStepState(step_id="s", started_at=utc, completed_at=utc)
    all_stores.returns(lambda store: store.create_run(state))
    all_stores.returns(lambda store: store.upsert_step("r", step))
    assert answer(all_stores.returns(lambda store: store.get_run("r"))) == answer(state)
    assert answer(all_stores.returns(lambda store: store.get_step("r", "s"))) == answer(step)


@given(run_task_id=identifiers_of(1024), step_id=identifiers_of(1024))
@bounded(25)
def test_identifiers_of_1024_bytes_are_kept_and_longer_ones_refused(
    all_stores: AllStores, run_task_id: str, step_id: str
) -> None:
    """They may hold any characters, and may differ in the last byte only."""
    state = run(
        run_task_id, agent_id=step_id, thread_id=step_id, user_id=step_id,
        workspace_id=step_id, entry_point=step_id, created_at=EPOCH, updated_at=EPOCH,
    )  # fmt: skip
    step = WorkflowStepState(step_id=step_id, wait_task_id=run_task_id)
    all_stores.returns(lambda store: store.create_run(state))
    all_stores.returns(lambda store: store.upsert_step(run_task_id, step))
    assert answer(all_stores.returns(lambda store: store.get_run(run_task_id))) == answer(state)
    assert answer(all_stores.returns(lambda store: store.get_step(run_task_id, step_id))) == answer(
        step
    )
    near = of_size(run_task_id, 1023) + "\x01"
    if near != run_task_id:
        assert all_stores.returns(lambda store: store.get_run(near)) is None
        assert all_stores.returns(lambda store: store.list_steps(near)) == []
    longer = run_task_id + "x"
    all_stores.raises(lambda store: store.get_run(longer), InvalidStateError)
    all_stores.raises(lambda store: store.get_step(run_task_id, longer), InvalidStateError)
    with pytest.raises(ValidationError):
        run(longer)
    with pytest.raises(ValidationError):
        WorkflowStepState(step_id=longer)
    all_stores.returns(lambda store: store.delete_run(run_task_id))
    assert all_stores.returns(lambda store: store.get_step(run_task_id, step_id)) is None
