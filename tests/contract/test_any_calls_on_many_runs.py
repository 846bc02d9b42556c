"""Any sequence of calls that list, purge and claim runs, on all stores and on a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from support.all_stores import AllStores
from support.model import Model, one_of
from support.strategies import AGES, EPOCH, RUN_IDS, bounded, fences, leases, run
from workflow_store import (
    TaskStatus,
    WorkflowStepState,
)

pytestmark = pytest.mark.slow


few_ids = st.sampled_from(RUN_IDS[:4])
owners = st.sampled_from("xyz")
plain_runs = st.builds(
    run,
    few_ids,
    **dict.fromkeys(("agent_id", "thread_id", "user_id", "workspace_id"), st.sampled_from("ab")),
    created_at=st.sampled_from(AGES),
    updated_at=st.just(EPOCH),
)
plain_steps = st.builds(
    WorkflowStepState,
    step_id=st.sampled_from("st"),
    status=st.sampled_from([TaskStatus.RUNNING, TaskStatus.INPUT_REQUIRED, TaskStatus.FAILED]),
    wait_task_id=st.sampled_from(["w", "w", "v", None]),
)
plain_lists = st.lists(plain_steps, min_size=2, max_size=4)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("agent_id", "thread_id", "user_id", "workspace_id"), st.sampled_from("ab")),
    "step_status": st.sampled_from(TaskStatus),
    "created_after": st.sampled_from(AGES),
    "created_before": st.sampled_from(AGES),
}
filters: st.SearchStrategy[dict[str, Any]] = (
    st.just({})
    | st.one_of(*(st.fixed_dictionaries({name: FILTERS[name]}) for name in FILTERS))
    | st.fixed_dictionaries({}, optional=FILTERS)
)


class ManyRuns(Model):
    """Calls that list, purge and claim many plain runs."""

    begin = initialize(several=st.lists(plain_runs, min_size=2, max_size=6))(Model.create_runs)

    @rule(
        call=one_of(
            create_runs={"several": st.lists(plain_runs, min_size=1, max_size=4)},
            delete_run={"run_task_id": few_ids, "fence": fences},
            upsert_step={"run_task_id": few_ids, "step": plain_steps, "fence": fences},
            upsert_steps={"run_task_id": few_ids, "several": plain_lists},
            commit_step={
                "run_task_id": few_ids,
                "step": plain_steps,
                "context": st.booleans(),
                "fence": fences,
            },
            list_runs={
                "asked": filters,
                "limits": st.lists(st.integers(1, 2), min_size=1, max_size=4),
            },
            list_on={"limit": st.integers(1, 3)},
            find_waiting_step={"wait_task_id": st.sampled_from("wwv")},
            purge_runs={
                "created_before": st.sampled_from(AGES[:2]) | st.sampled_from(AGES),
                "only_terminal": st.booleans(),
                "batch_size": st.integers(1, 3),
            },
            claim_run={"run_task_id": few_ids, "owner": owners, "lease_s": leases},
            claim_runs={
                "several": st.permutations(RUN_IDS[:4]),
                "owner": owners,
                "lease_s": leases,
            },
            claim_abandoned_runs={
                "owner": owners,
                "lease_s": leases,
                "limit": st.integers(1, 4),
            },
            renew_claim={"ago": st.integers(0, 5), "lease_s": leases},
            release_claim={"ago": st.integers(0, 5)},
            short_leases_run_out={},
        )
    )
    def call(self, call: tuple[str, dict[str, Any]]) -> None:
        self.make(call)


def test_all_stores_answer_any_sequence_of_calls_on_many_runs_alike(
    all_stores: AllStores,
) -> None:
    """Random calls, while leases expire."""
    on_these = type(ManyRuns.__name__, (ManyRuns,), {"all_stores": all_stores})
    run_state_machine_as_test(on_these, settings=bounded(40, stateful_step_count=50))
