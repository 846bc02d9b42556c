"""What holds for all values and for all sequences of calls, on all stores at once."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from operator import methodcaller
from typing import Any, ClassVar, TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import ValidationError

from workflow_store import (
    ClaimLostError,
    InMemoryWorkflowStore,
    InvalidStateError,
    ResumableWorkflowStore,
    RunClaim,
    RunPage,
    RunSnapshot,
    RunSummary,
    SqlWorkflowStore,
    TaskStatus,
    WaitingStep,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStoreError,
)
from workflow_store.json_codec import MAX_DEPTH, decode, encode

Call: TypeAlias = Callable[[ResumableWorkflowStore], Awaitable[object]]


def bounded(examples: int, **more: Any) -> settings:
    """Settings under which a slow machine finds the same as a fast one."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
        **more,
    )


# -- exact comparison ------------------------------------------------------------------


def exact(value: object) -> object:  # noqa: PLR0911 - one for each kind of value
    """Give what tells a value from all others: types, signs of zero, order of keys."""
    match value:
        case WorkflowExecutionState() | WorkflowStepState() | RunSummary():
            return (type(value), [(name, exact(field)) for name, field in value])
        case Counter():
            return (Counter, sorted(value.items()))
        case tuple():
            return (type(value), [exact(item) for item in value])
        case dict():
            return (dict, [(exact(key), exact(item)) for key, item in value.items()])
        case list():
            return (list, [exact(item) for item in value])
        case float():
            return (type(value), value.hex())
        case int():
            return (type(value), hex(value))  # `repr` stops at 4,300 digits
        case datetime():
            return (datetime, value.isoformat(), value.tzinfo is UTC)
        case _:
            return (type(value), value)


def answer(value: Any) -> object:
    """Give an answer of a store so that equal means the same in every respect."""
    states = value if isinstance(value, list) else [value]
    texts = [state.model_dump_json() if state is not None else None for state in states]
    return (exact(value), texts)


class Together:
    """All our stores, open, in one event loop: each call is made on all of them."""

    def __init__(self, runner: asyncio.Runner, stores: dict[str, ResumableWorkflowStore]) -> None:
        self.runner = runner
        self.stores = stores

    def outcomes(self, call: Call) -> dict[str, object]:
        """Give what each store returned, or which of our errors it raised."""

        async def outcome(store: ResumableWorkflowStore) -> object:
            try:
                return await call(store)
            except WorkflowStoreError as error:
                return error

        async def all_outcomes() -> list[object]:
            return await asyncio.gather(*map(outcome, self.stores.values()))

        return dict(zip(self.stores, self.runner.run(all_outcomes()), strict=True))

    def returns(self, call: Call) -> object:
        """Make a call that must give the same on all stores, and give that."""
        found = self.outcomes(call)
        for outcome in found.values():
            if isinstance(outcome, WorkflowStoreError):
                raise outcome
        answers = {name: answer(outcome) for name, outcome in found.items()}
        assert all(answers[name] == answers["memory"] for name in answers), found
        return found["memory"]

    def raises(self, call: Call, expected: type[WorkflowStoreError]) -> str:
        """Make a call that must fail alike on all stores, and give the message."""
        found = self.outcomes(call)
        assert {name: type(outcome) for name, outcome in found.items()} == dict.fromkeys(
            found, expected
        )
        messages = {str(outcome) for outcome in found.values()}
        assert len(messages) == 1, messages
        return messages.pop()


@pytest.fixture
def together(sqlite_url: str, postgres_url: str) -> Iterator[Together]:
    stores: dict[str, ResumableWorkflowStore] = {
        "memory": InMemoryWorkflowStore(),
        "sqlite-file": SqlWorkflowStore(sqlite_url, synchronous="NORMAL"),
        "sqlite-memory": SqlWorkflowStore("sqlite://"),
        "postgresql": SqlWorkflowStore(postgres_url),
    }
    with asyncio.Runner() as runner:
        together = Together(runner, stores)
        try:
            for store in stores.values():
                runner.run(store.open())
            yield together
        finally:
            for store in stores.values():
                runner.run(store.close())


# -- values ----------------------------------------------------------------------------

PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def without_pairs(text: str) -> str:
    """Take out the one thing that JSON cannot keep; what then stands together, too."""
    while PAIR.search(text):
        text = PAIR.sub("", text)
    return text


HOSTILE_TEXTS = [
    "", "\0", "\ud800", "\udc00", "\udfff\ud800", "\U0001f600", "e\u0301", "é", "\u2028", "\x7f",
    "\\u0000", "\\", '"', "'", "%s", ":name", "?", "$1", "{}", "null", "1.0", "\ufeff", "a" * 300,
]  # fmt: skip

texts = (
    st.text(st.characters(exclude_categories=()), max_size=20).map(without_pairs)
    | st.lists(st.sampled_from("\ud800\udbff\udc00\udfff\0a\\"), max_size=8)
    .map("".join)
    .map(without_pairs)
    | st.sampled_from(HOSTILE_TEXTS)
)

integers = (
    st.integers()
    | st.builds(
        lambda digits, less, sign: sign * (10**digits - less),
        st.integers(0, 5000),
        st.integers(0, 3),
        st.sampled_from([1, -1]),
    )
    | st.sampled_from([4299, 4300, 5000]).map(lambda digits: 10**digits)
    | st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 2**64])
)

floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 0.0, 1.0, 1e16, 1e22, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, 1e-7, 2.0**53]
)

scalars = st.none() | st.booleans() | integers | floats | texts

json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)

json_objects = st.dictionaries(texts, json_values, max_size=3)

offsets = st.timedeltas(
    timedelta(hours=-24, microseconds=1), timedelta(hours=24, microseconds=-1)
) | st.sampled_from([timedelta(0), timedelta(hours=5, minutes=45), timedelta(hours=-12)])

moments = (
    st.datetimes()
    | st.datetimes(max_value=datetime(1, 1, 3))  # noqa: DTZ001 - the offset is drawn apart
    | st.datetimes(min_value=datetime(9999, 12, 29))  # noqa: DTZ001
)

times = st.builds(lambda moment, offset: moment.replace(tzinfo=timezone(offset)), moments, offsets)


def in_utc(time: datetime) -> datetime | None:
    """The time in UTC, None where UTC cannot hold it."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return None


utc_times = times.map(in_utc).filter(lambda time: time is not None)

plain_identifier_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def of_size(text: str, size: int) -> str:
    """Make a text of exactly so many bytes."""
    kept = text.encode()[:size].decode(errors="ignore")
    return kept + "x" * (size - len(kept.encode()))


def identifiers_of(size: int) -> st.SearchStrategy[str]:
    return st.text(plain_identifier_characters, min_size=1, max_size=size).map(
        lambda text: of_size(text, size)
    )


identifiers = st.text(plain_identifier_characters, min_size=1, max_size=30)


def run(run_task_id: str = "r", **fields: Any) -> WorkflowExecutionState:
    required = {"agent_id": "a", "thread_id": "t", "user_id": "u", "definition": {}}
    return WorkflowExecutionState(run_task_id=run_task_id, **{**required, **fields})


def nested(kinds: list[bool]) -> Any:
    """One container inside the other, arrays and objects, as many as there are kinds."""
    value: Any = None
    for number, is_array in enumerate(kinds):
        inner = [] if number == 0 else [value]
        value = inner if is_array else dict.fromkeys("k" * len(inner), value)
    return value


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# -- all stores answer alike -----------------------------------------------------------

RUN_IDS = ["r", "R", "r ", "e\u0301", "é", "'; DROP TABLE runs; --", "\U0001f600" * 256]
STEP_IDS = ["s", "S", "%s", "\x01", ":of_run", "\ufffd", "\U0001f600" * 256]
BAD_IDS: list[Any] = ["", "\0", "a\0b", "\ud800", "x" * 1025, "é" * 513, None, 5, b"r", ["r"]]
BAD_VALUES: list[Any] = [
    float("nan"), [float("inf")], {"k": -float("inf")}, {1: 2}, {"k": [{None: 1}]}, b"bytes",
    {"k": {1, 2}}, [datetime(2026, 1, 1, tzinfo=UTC)], object, "\ud83d\ude00", {"\ud83d\ude00": 1},
    1j, Decimal(1), EPOCH, nested([True] * (MAX_DEPTH + 1)),
]  # fmt: skip

# Few enough to be met again by a filter, and by another run or step.
NAMES = ["a", "A", "a ", "é", "%"]
AGES = [EPOCH, EPOCH + timedelta(microseconds=1), EPOCH.replace(year=2026)]

run_ids = st.sampled_from(RUN_IDS)
step_ids = st.sampled_from(STEP_IDS)
bad_ids = st.sampled_from(BAD_IDS)
names = st.sampled_from(NAMES) | identifiers
ages = st.sampled_from(AGES) | utc_times
bad_values = st.sampled_from(BAD_VALUES)

steps = st.builds(
    WorkflowStepState,
    step_id=step_ids,
    status=st.sampled_from(TaskStatus),
    result=json_values,
    error=st.none() | texts,
    started_at=st.none() | utc_times,
    completed_at=st.none() | utc_times,
    wait_task_id=st.none() | names,
)

runs = st.builds(
    WorkflowExecutionState,
    run_task_id=run_ids,
    agent_id=names,
    thread_id=names,
    user_id=names,
    workspace_id=st.none() | names,
    entry_point=st.none() | identifiers,
    definition=json_objects,
    input=json_values,
    context=json_values,
    created_at=ages,
    updated_at=utc_times,
)


LONG_S = 3_600.0
SHORT_S = 0.02
"""A lease that runs out by itself: nothing is concluded from it before it certainly has."""

leases = st.sampled_from([SHORT_S, LONG_S])
fences = st.none() | st.integers(0, 5)
"""None for a write without a claim, or how many claims ago its claim was given."""


@dataclass(eq=False)
class Claim:
    """What every store gave for one claim; their tokens and clocks differ."""

    run_task_id: str
    owner: str
    lease_s: float
    given: dict[ResumableWorkflowStore, RunClaim]


class Model(RuleBasedStateMachine):
    """Calls on all stores and on a model: dicts of what was given last."""

    together: ClassVar[Together]

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
        found = self.together.outcomes(call)
        assert {name: exact(outcome) for name, outcome in found.items()} == dict.fromkeys(
            found, exact(expected)
        )

    def returns_none(self, call: Call) -> None:
        assert self.together.returns(call) is None

    def check(self, call: Call, expected: object) -> None:
        assert answer(self.together.returns(call)) == answer(expected)

    def refused(self, call: Call) -> None:
        self.together.raises(call, InvalidStateError)

    def not_found(self, call: Call, run_task_id: str) -> None:
        found = self.together.outcomes(call)
        assert {getattr(error, "run_task_id", None) for error in found.values()} == {run_task_id}
        assert {type(error).__name__ for error in found.values()} == {"RunNotFoundError"}

    def lost(self, call: Call, claim: Claim) -> None:
        found = self.together.outcomes(call)
        for name, store in self.together.stores.items():
            error = found[name]
            assert isinstance(error, ClaimLostError)
            expected = (claim.run_task_id, claim.given[store].token)
            assert (error.run_task_id, error.token) == expected

    def written(self, fence: int | None, call: Call, run_task_id: str | None = None) -> bool:
        """Write, perhaps with a claim that is lost, to a run that perhaps is not there."""
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
        for found_run in self.together.outcomes(lambda store: store.get_run(run_task_id)).values():
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
        """Give some pages; the next ones come later, after whatever happens in between."""
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
        found = self.together.outcomes(
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
        """Note a claim as the last to lapse, if ever it does."""
        self.claims.pop(claim.run_task_id, None)
        self.claims[claim.run_task_id] = claim
        if claim.lease_s == SHORT_S:
            self.lapsed_at = time.monotonic() + SHORT_S + 0.03
        time.sleep(0.002)  # the clock of SQLite has milliseconds

    def was_given(self, owner: str, lease_s: float, claims: dict[str, object]) -> None:
        """Check the claims that the stores, by their names, gave on one run."""
        given = {}
        for name, store in self.together.stores.items():
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
            claims = self.together.outcomes(call)
            self.was_given(owner, lease_s, claims)
            assert self.ever[-1].run_task_id == run_task_id

    def claim_runs(self, several: list[str], owner: str, lease_s: float) -> None:
        for run_task_id in several[:3]:
            if run_task_id in self.runs:
                self.claim_run(run_task_id, owner, lease_s)

    def claim_abandoned_runs(self, owner: str, lease_s: float, limit: int) -> None:
        self.short_leases_run_out()
        abandoned = [name for name, claim in self.claims.items() if claim.lease_s == SHORT_S]
        found: dict[str, Any] = self.together.outcomes(
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
        renewed = self.together.outcomes(call)
        for name, store in self.together.stores.items():
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
            found = self.together.outcomes(lambda store: store.renew_claim(claim.given[store]))  # noqa: B023
            assert all(isinstance(renewed, RunClaim) for renewed in found.values())


def one_of(**methods: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Give calls of methods, each as often as the others.

    As rules of their own, most would be turned off in most examples, and few would ever meet
    a run that is there.
    """
    return st.one_of(
        *(st.tuples(st.just(name), st.fixed_dictionaries(methods[name])) for name in methods)
    )


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
    """Calls that look at many plain runs, clean them up, and share them among owners."""

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


@pytest.mark.parametrize("machine", [AnyCalls, ManyRuns])
def test_all_stores_give_the_same_answers_to_any_sequence_of_calls(
    together: Together, machine: type[Model]
) -> None:
    """Random calls, with time that passes, on all stores and on a model of them."""
    on_these = type(machine.__name__, (machine,), {"together": together})
    run_state_machine_as_test(on_these, settings=bounded(40, stateful_step_count=50))


# -- values come back as they went in --------------------------------------------------


@given(value=json_values)
@bounded(400)
def test_json_text_gives_the_very_value_back(value: Any) -> None:
    """`decode` is the exact inverse of `encode`, and the text suits every database."""
    text = encode(value, field="value")
    assert exact(decode(text)) == exact(value)
    text.encode()
    assert not re.search("[\0-\x1f]", text)
    assert encode(decode(text), field="value") == text


@given(definition=json_objects, given_input=json_values, context=json_values, result=json_values)
@bounded(60)
def test_json_values_come_back_from_every_store_as_they_went_in(
    together: Together, definition: Any, given_input: Any, context: Any, result: Any
) -> None:
    state = run(definition=definition, input=given_input, context=result)
    step = WorkflowStepState(step_id="s", result=result)
    together.returns(lambda store: store.create_run(state))
    assert answer(together.returns(lambda store: store.get_run("r"))) == answer(state)
    together.returns(lambda store: store.upsert_step("r", step))
    assert answer(together.returns(lambda store: store.get_step("r", "s"))) == answer(step)
    assert answer(together.returns(lambda store: store.list_steps("r"))) == answer([step])
    together.outcomes(lambda store: store.update_context("r", context))
    for found in together.outcomes(lambda store: store.get_run("r")).values():
        assert isinstance(found, WorkflowExecutionState)
        assert exact(found.context) == exact(context)
        assert exact(found.definition) == exact(definition)


@given(error=texts)
@bounded(30)
def test_error_texts_come_back_from_every_store_as_they_went_in(
    together: Together, error: str
) -> None:
    step = WorkflowStepState(step_id="s", error=error)
    together.returns(lambda store: store.create_run(run(created_at=EPOCH, updated_at=EPOCH)))
    together.returns(lambda store: store.upsert_step("r", step))
    assert answer(together.returns(lambda store: store.get_step("r", "s"))) == answer(step)


KEYS = ["k", "key_2", "a b", "", "1", "\n", "it's", "é", "class"]

FOREIGN: list[Any] = [
    float("nan"), float("inf"), -float("inf"), b"x", bytearray(b"x"), object(), set(), frozenset(),
    EPOCH, EPOCH.date(), timedelta(1), Decimal(1), 1j, range(3), iter([]), Ellipsis, int,
    {1: 1}, {None: 1}, {"k": 1, True: 1}, {("k",): 1}, {b"k": 1}, "\ud83d\ude00",
    {"\udbff\udfff": 1},
]  # fmt: skip


@st.composite
def with_something_foreign(draw: st.DrawFn) -> tuple[Any, str]:
    """A value with one thing inside that is not JSON, and the path to it."""
    value = draw(st.sampled_from(FOREIGN))
    is_bad_key = isinstance(value, dict) and list(value) == ["\udbff\udfff"]
    path = "['\\udbff\\udfff']" if is_bad_key else ""
    for _ in range(draw(st.integers(0, 6))):
        before = draw(st.lists(json_values, max_size=3))
        after = draw(st.lists(json_values, max_size=2))
        if draw(st.booleans()):
            value = [*before, value, *after]
            path = f"[{len(before)}]{path}"
        else:
            key = draw(st.sampled_from(KEYS))
            others = [f"other {number}" for number in range(5)]
            value = {
                **dict(zip(others, before, strict=False)),
                key: value,
                **dict(zip(others[3:], after, strict=False)),
            }
            path = f".{key}{path}" if key.isidentifier() else f"[{key!a}]{path}"
    return value, path


@given(foreign=with_something_foreign())
@example(foreign=(EPOCH, ""))  # other fields of a state are times
@bounded(60)
def test_what_is_not_json_is_refused_with_its_place_and_nothing_is_written(
    together: Together, foreign: tuple[Any, str]
) -> None:
    """Wherever it stands in a field, the message names the field and the path."""
    value, path = foreign
    kept = run("kept", created_at=EPOCH, updated_at=EPOCH)
    kept_step = WorkflowStepState(step_id="s", result=1)
    together.returns(lambda store: store.create_run(kept))
    together.returns(lambda store: store.upsert_step("kept", kept_step))
    for field, place, call in (
        ("input", path, lambda store: store.create_run(run("new", input=value))),
        ("context", path, lambda store: store.create_run(run("kept", context=value))),
        (
            "definition",
            f".k{path}",
            lambda store: store.create_run(run("kept", definition={"k": value})),
        ),
        ("context", path, lambda store: store.update_context("kept", value)),
        ("context", path, lambda store: store.update_context("new", value)),
        (
            "result",
            path,
            lambda store: store.upsert_step("kept", WorkflowStepState(step_id="s", result=value)),
        ),
        (
            "result",
            path,
            lambda store: store.upsert_step("kept", WorkflowStepState(step_id="new", result=value)),
        ),
    ):
        message = together.raises(call, InvalidStateError)
        assert message.startswith(f"{field}{place}: ")
    assert together.returns(lambda store: store.get_run("new")) is None
    assert answer(together.returns(lambda store: store.get_run("kept"))) == answer(kept)
    assert answer(together.returns(lambda store: store.list_steps("kept"))) == answer([kept_step])


@given(kinds=st.lists(st.booleans(), min_size=MAX_DEPTH, max_size=MAX_DEPTH))
@bounded(8)
def test_nesting_is_taken_up_to_the_bound_and_read_back_and_refused_beyond_it(
    together: Together, kinds: list[bool]
) -> None:
    """128 levels of arrays and objects in any mixture; `[]` is one level."""
    value, too_deep = nested(kinds), [nested(kinds)]
    definition = nested([*kinds[:-1], False])
    state = run(definition=definition, input=value, context=value)
    step = WorkflowStepState(step_id="s", result=value)
    together.returns(lambda store: store.create_run(state))
    together.returns(lambda store: store.upsert_step("r", step))
    assert answer(together.returns(lambda store: store.get_run("r"))) == answer(state)
    assert answer(together.returns(lambda store: store.list_steps("r"))) == answer([step])
    for field, call in {
        "definition": lambda store: store.create_run(run("new", definition={"k": value})),
        "input": lambda store: store.create_run(run("new", input=too_deep)),
        "context": lambda store: store.update_context("r", too_deep),
        "result": lambda store: store.upsert_step(
            "r", WorkflowStepState(step_id="new", result=too_deep)
        ),
    }.items():
        message = together.raises(call, InvalidStateError)
        assert message.startswith(field)
        assert "128" in message
    assert together.returns(lambda store: store.get_run("new")) is None
    assert answer(together.returns(lambda store: store.list_steps("r"))) == answer([step])


# -- times and identifiers -------------------------------------------------------------


@given(created=times, updated=times, started=times, completed=times)
@bounded(60)
def test_aware_times_come_back_in_utc_to_the_microsecond_or_are_refused_at_once(
    together: Together,
    created: datetime,
    updated: datetime,
    started: datetime,
    completed: datetime,
) -> None:
    """Any offset, from the year 1 to 9999; what UTC cannot hold is no state at all."""
    if None in {in_utc(created), in_utc(updated)}:
        with pytest.raises(ValidationError):
            run(created_at=created, updated_at=updated)
    else:
        state = run(created_at=created, updated_at=updated)
        together.returns(lambda store: store.create_run(state))
        found: Any = together.returns(lambda store: store.get_run("r"))
        assert exact(found.created_at) == exact(in_utc(created))
        assert exact(found.updated_at) == exact(in_utc(updated))
    if None in {in_utc(started), in_utc(completed)}:
        with pytest.raises(ValidationError):
            WorkflowStepState(step_id="s", started_at=started, completed_at=completed)
    else:
        step = WorkflowStepState(step_id="s", started_at=started, completed_at=completed)
        together.returns(lambda store: store.create_run(run(created_at=EPOCH, updated_at=EPOCH)))
        together.returns(lambda store: store.upsert_step("r", step))
        found = together.returns(lambda store: store.get_step("r", "s"))
        assert exact(found.started_at) == exact(in_utc(started))
        assert exact(found.completed_at) == exact(in_utc(completed))


@pytest.mark.parametrize(
    "utc", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_the_first_and_the_last_moment_of_all_are_kept(together: Together, utc: datetime) -> None:
    state = run(created_at=utc, updated_at=utc)
    step = WorkflowStepState(step_id="s", started_at=utc, completed_at=utc)
    together.returns(lambda store: store.create_run(state))
    together.returns(lambda store: store.upsert_step("r", step))
    assert answer(together.returns(lambda store: store.get_run("r"))) == answer(state)
    assert answer(together.returns(lambda store: store.get_step("r", "s"))) == answer(step)


@given(run_task_id=identifiers_of(1024), step_id=identifiers_of(1024))
@bounded(25)
def test_identifiers_of_1024_bytes_are_kept_and_longer_ones_refused(
    together: Together, run_task_id: str, step_id: str
) -> None:
    """Of any characters; two of them that differ in the last byte are two."""
    state = run(
        run_task_id, agent_id=step_id, thread_id=step_id, user_id=step_id,
        workspace_id=step_id, entry_point=step_id, created_at=EPOCH, updated_at=EPOCH,
    )  # fmt: skip
    step = WorkflowStepState(step_id=step_id, wait_task_id=run_task_id)
    together.returns(lambda store: store.create_run(state))
    together.returns(lambda store: store.upsert_step(run_task_id, step))
    assert answer(together.returns(lambda store: store.get_run(run_task_id))) == answer(state)
    assert answer(together.returns(lambda store: store.get_step(run_task_id, step_id))) == answer(
        step
    )
    near = of_size(run_task_id, 1023) + "\x01"
    if near != run_task_id:
        assert together.returns(lambda store: store.get_run(near)) is None
        assert together.returns(lambda store: store.list_steps(near)) == []
    longer = run_task_id + "x"
    together.raises(lambda store: store.get_run(longer), InvalidStateError)
    together.raises(lambda store: store.get_step(run_task_id, longer), InvalidStateError)
    with pytest.raises(ValidationError):
        run(longer)
    with pytest.raises(ValidationError):
        WorkflowStepState(step_id=longer)
    together.returns(lambda store: store.delete_run(run_task_id))
    assert together.returns(lambda store: store.get_step(run_task_id, step_id)) is None
