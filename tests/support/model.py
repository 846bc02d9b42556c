"""A model of a store, for state machines that compare all stores with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from support.all_stores import AllStores, Call, answer, exact
from support.strategies import LONG_S, NAMES, RUN_IDS, SHORT_S
from workflow_store import (
    ClaimLostError,
    InvalidStateError,
    ResumableWorkflowStore,
    RunClaim,
    RunPage,
    RunSnapshot,
    RunSummary,
    WaitingStep,
    WorkflowExecutionState,
    WorkflowStepState,
)


@dataclass(eq=False)
class Claim:
    """One claim, as each store returned it; tokens and times differ between stores."""

    run_task_id: str
    owner: str
    lease_s: float
    given: dict[ResumableWorkflowStore, RunClaim]


class Model(RuleBasedStateMachine):
    """Makes each call on all stores and on dicts, and compares the answers."""

    all_stores: ClassVar[AllStores]

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, WorkflowExecutionState] = {}
        self.steps: dict[str, dict[str, WorkflowStepState]] = {}
        self.insertions: list[tuple[str, str]] = []
        self.claims: dict[str, Claim] = {}  # those that hold or lapsed, the last renewed last
        self.ever: list[Claim] = []
        self.tokens: Counter[tuple[ResumableWorkflowStore, str]] = Counter()
        self.lapsed_at = 0.0
        self.page: tuple[dict[str, Any], RunPage] | None = None
        for run_task_id in RUN_IDS:
            self.delete_run(run_task_id)

    def make(self, call: tuple[str, dict[str, Any]]) -> None:
        name, arguments = call
        getattr(self, name)(**arguments)

    # -- what is expected of all stores -------------------------------------------------

    def gives(self, call: Call, expected: object) -> None:
        found = self.all_stores.outcomes(call)
        assert {name: exact(outcome) for name, outcome in found.items()} == dict.fromkeys(
            found, exact(expected)
        )

    def returns_none(self, call: Call) -> None:
        assert self.all_stores.returns(call) is None

    def check(self, call: Call, expected: object) -> None:
        assert answer(self.all_stores.returns(call)) == answer(expected)

    def refused(self, call: Call) -> None:
        self.all_stores.raises(call, InvalidStateError)

    def not_found(self, call: Call, run_task_id: str) -> None:
        found = self.all_stores.outcomes(call)
        assert {getattr(error, "run_task_id", None) for error in found.values()} == {run_task_id}
        assert {type(error).__name__ for error in found.values()} == {"RunNotFoundError"}

    def lost(self, call: Call, claim: Claim) -> None:
        found = self.all_stores.outcomes(call)
        for name, store in self.all_stores.stores.items():
            error = found[name]
            assert isinstance(error, ClaimLostError)
            expected = (claim.run_task_id, claim.given[store].token)
            assert (error.run_task_id, error.token) == expected

    def written(self, fence: int | None, call: Call, run_task_id: str | None = None) -> bool:
        """Write, and return whether it was done: the claim may be lost, the run missing."""
        claim = None if fence is None or not self.ever else self.ever[-1 - fence % len(self.ever)]
        write = call
        if claim is not None:

            def fenced(store: ResumableWorkflowStore) -> Awaitable[object]:
                return call(store.fenced(claim.given[store]))

            write = fenced
            if self.claims.get(claim.run_task_id) is not claim:
                self.lost(write, claim)
                return False
        if run_task_id is not None and run_task_id not in self.runs:
            self.not_found(write, run_task_id)
            return False
        self.gives(write, None)
        return True

    # -- runs and steps -----------------------------------------------------------------

    def create_run(self, state: WorkflowExecutionState, fence: int | None = None) -> None:
        if self.written(fence, lambda store: store.create_run(state)):
            self.runs[state.run_task_id] = state
            self.steps.setdefault(state.run_task_id, {})

    def create_runs(self, several: list[WorkflowExecutionState]) -> None:
        for state in several:
            self.create_run(state)

    def update_context(self, run_task_id: str, context: Any, fence: int | None) -> None:
        before = datetime.now(UTC)
        if self.written(
            fence, lambda store: store.update_context(run_task_id, context), run_task_id
        ):
            self.context_was_set(run_task_id, context, before)

    def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: Any, fence: int | None
    ) -> None:
        before = datetime.now(UTC)
        if self.written(
            fence, lambda store: store.commit_step(run_task_id, step, context), run_task_id
        ):
            self.step_was_put(run_task_id, step)
            self.context_was_set(run_task_id, context, before)

    def context_was_set(self, run_task_id: str, context: Any, before: datetime) -> None:
        after = datetime.now(UTC)
        for found_run in self.all_stores.outcomes(
            lambda store: store.get_run(run_task_id)
        ).values():
            assert isinstance(found_run, WorkflowExecutionState)
            assert before <= found_run.updated_at <= after
            expected = self.runs[run_task_id].model_copy(
                update={"context": context, "updated_at": found_run.updated_at}
            )
            assert answer(found_run) == answer(expected)
        # The clocks of the calls differ: all stores go on from one time.
        self.create_run(
            self.runs[run_task_id].model_copy(update={"context": context, "updated_at": after})
        )

    def delete_run(self, run_task_id: str, fence: int | None = None) -> None:
        if self.written(fence, lambda store: store.delete_run(run_task_id)):
            self.run_is_gone(run_task_id)

    def run_is_gone(self, run_task_id: str) -> None:
        self.runs.pop(run_task_id, None)
        self.claims.pop(run_task_id, None)
        for step_id in self.steps.pop(run_task_id, {}):
            self.insertions.remove((run_task_id, step_id))

    def upsert_step(
        self, run_task_id: str, step: WorkflowStepState, fence: int | None = None
    ) -> None:
        if self.written(fence, lambda store: store.upsert_step(run_task_id, step), run_task_id):
            self.step_was_put(run_task_id, step)

    def step_was_put(self, run_task_id: str, step: WorkflowStepState) -> None:
        if step.step_id not in self.steps[run_task_id]:
            self.insertions.append((run_task_id, step.step_id))
        self.steps[run_task_id][step.step_id] = step

    def upsert_steps(self, run_task_id: str, several: list[WorkflowStepState]) -> None:
        for step in several:
            self.upsert_step(run_task_id, step)

    def get_run(self, run_task_id: str) -> None:
        self.check(lambda store: store.get_run(run_task_id), self.runs.get(run_task_id))

    def get_step(self, run_task_id: str, step_id: str) -> None:
        expected = self.steps.get(run_task_id, {}).get(step_id)
        self.check(lambda store: store.get_step(run_task_id, step_id), expected)

    def list_steps(self, run_task_id: str) -> None:
        expected = list(self.steps.get(run_task_id, {}).values())
        self.check(lambda store: store.list_steps(run_task_id), expected)

    def load_run(self, run_task_id: str) -> None:
        run = self.runs.get(run_task_id)
        snapshot = RunSnapshot(run, list(self.steps[run_task_id].values())) if run else None
        self.gives(lambda store: store.load_run(run_task_id), snapshot)

    # -- many runs ----------------------------------------------------------------------

    def summary(self, run_task_id: str) -> RunSummary:
        fields = set(RunSummary.model_fields) - {"step_counts"}
        counts = Counter(step.status for step in self.steps[run_task_id].values())
        return RunSummary(**self.runs[run_task_id].model_dump(include=fields), step_counts=counts)

    def is_listed(self, run: WorkflowExecutionState, asked: dict[str, Any]) -> bool:
        for name, value in asked.items():
            match name:
                case "step_status":
                    steps = self.steps[run.run_task_id].values()
                    holds = any(step.status is value for step in steps)
                case "created_after":
                    holds = run.created_at > value
                case "created_before":
                    holds = run.created_at < value
                case _:
                    holds = getattr(run, name) == value
            if not holds:
                return False
        return True

    def list_runs(self, asked: dict[str, Any], limits: list[int]) -> None:
        """Read the first pages; `list_on` reads further ones after other calls."""
        self.page = (asked, RunPage([], None))
        for limit in limits:
            self.list_on(limit)

    def list_on(self, limit: int) -> None:
        if self.page is None:
            return
        asked, (before, cursor) = self.page
        listed = sorted(
            (run.created_at, name)
            for name, run in self.runs.items()
            if self.is_listed(run, asked)
            and (not before or (run.created_at, name) < self.place(before[-1]))
        )[::-1]
        found = self.all_stores.outcomes(
            lambda store: store.list_runs(**asked, limit=limit, cursor=cursor)
        )
        expected = [exact(self.summary(name)) for _, name in listed[:limit]]
        cursors = set()
        for page in found.values():
            assert isinstance(page, RunPage)
            assert [exact(summary) for summary in page.runs] == expected
            cursors.add(page.next_cursor)
            self.page = (asked, page)
        assert len(cursors) == 1
        assert (cursors == {None}) == (len(listed) <= limit)
        if cursors == {None}:
            self.page = None

    @staticmethod
    def place(summary: RunSummary) -> tuple[datetime, str]:
        return summary.created_at, summary.run_task_id

    def find_waiting_step(self, wait_task_id: str) -> None:
        waiting = [
            WaitingStep(run_task_id, step)
            for run_task_id, step_id in self.insertions
            for step in [self.steps[run_task_id][step_id]]
            if step.wait_task_id == wait_task_id and not step.status.is_terminal
        ]
        expected = waiting[-1] if waiting else None
        self.gives(lambda store: store.find_waiting_step(wait_task_id), expected)

    def purge_runs(self, created_before: datetime, only_terminal: bool, batch_size: int) -> None:
        gone = [
            name
            for name, run in self.runs.items()
            if run.created_at < created_before
            and not (
                only_terminal
                and any(not step.status.is_terminal for step in self.steps[name].values())
            )
        ]
        self.gives(
            lambda store: store.purge_runs(
                created_before=created_before, only_terminal=only_terminal, batch_size=batch_size
            ),
            len(gone),
        )
        for name in gone:
            self.run_is_gone(name)

    # -- claims -------------------------------------------------------------------------

    def short_leases_run_out(self) -> None:
        time.sleep(max(0.0, self.lapsed_at - time.monotonic()))

    def lease_begins(self, claim: Claim) -> None:
        """Record a claim as the last one to expire."""
        self.claims.pop(claim.run_task_id, None)
        self.claims[claim.run_task_id] = claim
        if claim.lease_s == SHORT_S:
            self.lapsed_at = time.monotonic() + SHORT_S + 0.03
        time.sleep(0.002)  # the clock of SQLite has milliseconds

    def was_given(self, owner: str, lease_s: float, claims: dict[str, object]) -> None:
        """Check the claims on one run, by name of the store that returned them."""
        given = {}
        for name, store in self.all_stores.stores.items():
            claim = claims[name]
            assert isinstance(claim, RunClaim)
            assert (claim.owner, claim.lease_s) == (owner, lease_s)
            assert claim.token > self.tokens[store, claim.run_task_id]
            assert claim.expires_at.tzinfo is UTC
            self.tokens[store, claim.run_task_id] = claim.token
            given[store] = claim
        (run_task_id,) = {claim.run_task_id for claim in given.values()}
        self.ever.append(Claim(run_task_id, owner, lease_s, given))
        self.lease_begins(self.ever[-1])

    def claim_run(self, run_task_id: str, owner: str, lease_s: float) -> None:
        def call(store: ResumableWorkflowStore) -> Awaitable[object]:
            return store.claim_run(run_task_id, owner=owner, lease_s=lease_s)

        if run_task_id not in self.runs:
            self.not_found(call, run_task_id)
            return
        held = self.claims.get(run_task_id)
        if held is not None and held.lease_s == SHORT_S:
            self.short_leases_run_out()
        if held is not None and held.lease_s == LONG_S and held.owner != owner:
            self.gives(call, None)
        else:
            claims = self.all_stores.outcomes(call)
            self.was_given(owner, lease_s, claims)
            assert self.ever[-1].run_task_id == run_task_id

    def claim_runs(self, several: list[str], owner: str, lease_s: float) -> None:
        for run_task_id in several[:3]:
            if run_task_id in self.runs:
                self.claim_run(run_task_id, owner, lease_s)

    def claim_abandoned_runs(self, owner: str, lease_s: float, limit: int) -> None:
        self.short_leases_run_out()
        abandoned = [name for name, claim in self.claims.items() if claim.lease_s == SHORT_S]
        found: dict[str, Any] = self.all_stores.outcomes(
            lambda store: store.claim_abandoned_runs(owner=owner, lease_s=lease_s, limit=limit)
        )
        for claims in found.values():
            assert [claim.run_task_id for claim in claims] == abandoned[:limit]
        for number in range(len(abandoned[:limit])):
            self.was_given(owner, lease_s, {name: found[name][number] for name in found})

    def renew_claim(self, ago: int, lease_s: float) -> None:
        if not self.ever:
            return
        claim = self.ever[-1 - ago % len(self.ever)]

        def call(store: ResumableWorkflowStore) -> Awaitable[object]:
            return store.renew_claim(claim.given[store]._replace(lease_s=lease_s))

        if self.claims.get(claim.run_task_id) is not claim:
            self.lost(call, claim)
            return
        renewed = self.all_stores.outcomes(call)
        for name, store in self.all_stores.stores.items():
            before, after = claim.given[store], renewed[name]
            assert isinstance(after, RunClaim)
            assert after == before._replace(lease_s=lease_s, expires_at=after.expires_at)
            claim.given[store] = after
        claim.lease_s = lease_s
        self.lease_begins(claim)

    def release_claim(self, ago: int) -> None:
        if not self.ever:
            return
        claim = self.ever[-1 - ago % len(self.ever)]
        self.gives(lambda store: store.release_claim(claim.given[store]), None)
        if self.claims.get(claim.run_task_id) is claim:
            del self.claims[claim.run_task_id]

    def teardown(self) -> None:
        for run_task_id in RUN_IDS:
            self.load_run(run_task_id)
        self.list_runs({}, [1_000])
        for wait_task_id in ("v", "w", *NAMES):
            self.find_waiting_step(wait_task_id)
        for claim in self.ever:
            if self.claims.get(claim.run_task_id) is not claim:
                self.lost(lambda store: store.renew_claim(claim.given[store]), claim)  # noqa: B023
        for claim in list(self.claims.values()):
            found = self.all_stores.outcomes(lambda store: store.renew_claim(claim.given[store]))  # noqa: B023
            assert all(isinstance(renewed, RunClaim) for renewed in found.values())


def one_of(**methods: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Draw calls of methods, each equally often.

    As rules of their own, most would be turned off in most examples, and few would ever meet
    a run that is there.
    """
    return st.one_of(
        *(st.tuples(st.just(name), st.fixed_dictionaries(methods[name])) for name in methods)
    )
