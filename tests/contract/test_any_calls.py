"""Any sequence of calls, on all stores and on a model of them."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from support.all_stores import AllStores, Call
from support.model import Model, one_of
from support.strategies import (
    bad_ids,
    bad_values,
    bounded,
    fences,
    json_values,
    leases,
    names,
    run_ids,
    runs,
    step_ids,
    steps,
)
from workflow_store import (
    WorkflowExecutionState,
    WorkflowStepState,
)

pytestmark = pytest.mark.slow


class AnyCalls(Model):
    """Calls with colliding hostile ids, hostile values and bad arguments."""

    begin = initialize(several=st.lists(runs, max_size=4))(Model.create_runs)

    @rule(
        call=one_of(
            create_run={"state": runs, "fence": fences},
            update_context={"run_task_id": run_ids, "context": json_values, "fence": fences},
            upsert_step={"run_task_id": run_ids, "step": steps, "fence": fences},
            upsert_steps={
                "run_task_id": run_ids,
                "several": st.lists(steps, min_size=2, max_size=6),
            },
            commit_step={
                "run_task_id": run_ids,
                "step": steps,
                "context": json_values,
                "fence": fences,
            },
            delete_run={"run_task_id": run_ids, "fence": fences},
            get_run={"run_task_id": run_ids},
            get_step={"run_task_id": run_ids, "step_id": step_ids},
            list_steps={"run_task_id": run_ids},
            load_run={"run_task_id": run_ids},
            claim_run={"run_task_id": run_ids, "owner": names, "lease_s": leases},
            bad_identifier={
                "bad": bad_ids,
                "other": run_ids | bad_ids,
                "step": steps,
                "value": json_values | bad_values,
            },
            bad_value={
                "state": runs,
                "bad": bad_values,
                "step": steps,
                "field": st.sampled_from(["input", "context"]),
            },
            bad_state={"state": runs, "step": steps},
        )
    )
    def call(self, call: tuple[str, dict[str, Any]]) -> None:
        self.make(call)

    def bad_identifier(self, bad: Any, other: Any, step: WorkflowStepState, value: Any) -> None:
        calls: list[Call] = [
            lambda store: store.get_run(bad),
            lambda store: store.update_context(bad, value),
            lambda store: store.delete_run(bad),
            lambda store: store.upsert_step(bad, step),
            lambda store: store.get_step(bad, other),
            lambda store: store.get_step(other, bad),
            lambda store: store.list_steps(bad),
            lambda store: store.upsert_step(
                other, step.model_copy(update={"step_id": bad, "result": value})
            ),
            lambda store: store.upsert_step(
                other, step.model_copy(update={"wait_task_id": bad or ""})
            ),
            lambda store: store.load_run(bad),
            lambda store: store.commit_step(bad, step, value),
            lambda store: store.find_waiting_step(bad),
            lambda store: store.list_runs(agent_id=bad or ""),
            lambda store: store.list_runs(cursor=bad or ""),
            lambda store: store.claim_run(bad, owner=other),
            lambda store: store.claim_run(other, owner=bad),
            lambda store: store.claim_abandoned_runs(owner=bad),
        ]
        for call in calls:
            self.refused(call)

    def bad_value(
        self, state: WorkflowExecutionState, bad: Any, step: WorkflowStepState, field: str
    ) -> None:
        run_task_id = state.run_task_id
        calls: list[Call] = [
            lambda store: store.create_run(state.model_copy(update={field: bad})),
            lambda store: store.create_run(state.model_copy(update={"definition": {"k": bad}})),
            lambda store: store.update_context(run_task_id, bad),
            lambda store: store.upsert_step(run_task_id, step.model_copy(update={"result": bad})),
            lambda store: store.commit_step(run_task_id, step, bad),
            lambda store: store.commit_step(
                run_task_id, step.model_copy(update={"result": bad}), 1
            ),
        ]
        for call in calls:
            self.refused(call)

    def bad_state(self, state: WorkflowExecutionState, step: WorkflowStepState) -> None:
        wrong: Any
        naive = state.created_at.replace(tzinfo=None)
        for wrong in (
            None, dict(state), step, state.model_copy(update={"definition": []}),
            state.model_copy(update={"created_at": naive}),
            state.model_copy(update={"user_id": None}),
        ):  # fmt: skip
            self.refused(methodcaller("create_run", wrong))
        for wrong in (
            None, dict(step), state, step.model_copy(update={"status": "done"}),
            step.model_copy(update={"error": "\ud83d\ude00"}),
            step.model_copy(update={"started_at": naive}),
        ):  # fmt: skip
            self.refused(methodcaller("upsert_step", "r", wrong))


def test_all_stores_answer_any_sequence_of_calls_alike(
    all_stores: AllStores,
) -> None:
    """Random calls with hostile and bad arguments, while leases expire."""
    on_these = type(AnyCalls.__name__, (AnyCalls,), {"all_stores": all_stores})
    run_state_machine_as_test(on_these, settings=bounded(40, stateful_step_count=50))
