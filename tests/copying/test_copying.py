"""Copying from any store to any other: `put_run` and `copy_runs`."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.failures import execute
from support.samples import (
    DAY,
    MICROSECOND,
    fill,
    held,
    hostile,
    newest_first,
    several,
    snapshot,
    step,
)
from workflow_store import (
    InMemoryWorkflowStore,
    ResumableWorkflowStore,
    RunSnapshot,
    SchemaMismatchError,
    StoreClosedError,
    copying,
    open_store,
)
from workflow_store.archive import to_line
from workflow_store.copying import Comparison, Copied, Outcome, copy_runs, put_run

LATER = DAY + timedelta(hours=1)


@pytest.fixture
async def opening() -> AsyncIterator[AsyncExitStack]:
    """Close what is opened in a test."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["memory", "sqlite_url", "postgres_url"])
def source_url(request: pytest.FixtureRequest) -> str:
    """Each kind of store, with nothing in it."""
    name = request.param
    return "memory://" if name == "memory" else str(request.getfixturevalue(name))


@pytest.fixture
async def source(source_url: str, opening: AsyncExitStack) -> ResumableWorkflowStore:
    """A store of each kind."""
    return await opening.enter_async_context(open_store(source_url))


@pytest.fixture
async def memory(opening: AsyncExitStack) -> ResumableWorkflowStore:
    """A store in memory."""
    return await opening.enter_async_context(InMemoryWorkflowStore())


@pytest.fixture
async def other(opening: AsyncExitStack, tmp_path: Path) -> ResumableWorkflowStore:
    """A store in a file."""
    return await opening.enter_async_context(open_store(f"sqlite:///{tmp_path}/other.db"))


def outcomes(comparison: Comparison) -> dict[str, int]:
    return {outcome.value: count for outcome, count in comparison.outcomes.items() if count}


# -- all runs --------------------------------------------------------------------------


async def test_a_copy_is_the_same_and_a_second_one_finds_nothing_to_do(
    source: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """From each kind of store, and back to it after it was emptied."""
    snapshots = [*several(70), hostile(), snapshot("no steps")]
    await fill(source, *snapshots)
    comparison = await copy_runs(source, other)
    assert comparison.agree
    assert (comparison.source.runs, comparison.source.steps) == (72, 213)
    assert (comparison.destination.runs, comparison.destination.steps) == (72, 213)
    assert (comparison.passes, outcomes(comparison)) == (2, {"new": 72, "same": 72})
    assert await held(source) == await held(other) == newest_first(*snapshots)

    again = await copy_runs(source, other)
    assert again.agree
    assert again.source.sha256 == comparison.source.sha256 == again.destination.sha256
    assert (again.passes, outcomes(again)) == (1, {"same": 72})

    for stored in snapshots:
        await source.delete_run(stored.run.run_task_id)
    back = await copy_runs(other, source)
    assert back.agree
    assert back.destination.sha256 == comparison.source.sha256
    assert await held(source) == newest_first(*snapshots)


async def test_comparing_writes_nothing(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """It reports what would be written, in one pass."""
    same, changed, new, extra = several(4)
    changed_there = RunSnapshot(changed.run, changed.steps[:1])
    await fill(memory, same, changed, new)
    await fill(other, same, changed_there, extra)
    before = await held(other)
    seen: list[Copied] = []
    comparison = await copy_runs(memory, other, write=False, on_run=seen.append)
    assert not comparison.agree
    assert outcomes(comparison) == {"same": 1, "changed": 1, "new": 1, "extra": 1}
    assert {copied.run_task_id: copied.outcome for copied in seen} == {
        same.run.run_task_id: Outcome.SAME,
        changed.run.run_task_id: Outcome.CHANGED,
        new.run.run_task_id: Outcome.NEW,
        extra.run.run_task_id: Outcome.EXTRA,
    }
    assert {copied.steps for copied in seen} == {3}
    assert await held(other) == before


NEWER = {
    "updated": snapshot("r", step("s"), updated_at=LATER),
    "started": snapshot("r", step("s", started_at=LATER)),
    "completed": snapshot("r", step("s", completed_at=LATER), step("t")),
    "created again": snapshot("r", step("s"), created_at=LATER),
    "with a step more": snapshot("r", step("s"), step("t")),
    "with a step before": snapshot("r", step("t"), step("s")),
    "with another step": snapshot("r", step("t")),
}


@pytest.mark.parametrize("name", NEWER)
async def test_a_run_that_is_newer_there_is_left_alone(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore, name: str
) -> None:
    """By any of its times, or by its steps, which may have none; it is reported once."""
    newer = NEWER[name]
    await fill(memory, snapshot("r", step("s", result=1)), *several(3))
    await fill(other, newer)
    for write in (False, True):
        seen: list[Copied] = []
        comparison = await copy_runs(memory, other, write=write, on_run=seen.append)
        assert not comparison.agree
        assert comparison.outcomes[Outcome.NEWER] == 1
        assert "r" in {copied.run_task_id for copied in seen if copied.outcome is Outcome.NEWER}
    assert to_line(newer) in await held(other)
    assert comparison.outcomes[Outcome.NEW] == 3


async def test_a_step_that_is_written_after_a_copy_is_not_deleted_by_the_next_one(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """Also if its writer sets no times, and the source's does."""
    await fill(memory, snapshot("r", step("s")))
    assert (await copy_runs(memory, other)).agree
    await other.upsert_step("r", step("t"))
    await memory.upsert_step("r", step("s", completed_at=LATER))
    await memory.update_context("r", "later")
    comparison = await copy_runs(memory, other)
    assert not comparison.agree
    assert outcomes(comparison) == {"newer": 1}
    assert [state.step_id for state in await other.list_steps("r")] == ["s", "t"]


async def test_a_run_that_is_there_alone_is_left_alone(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """It is named as extra, and the two do not agree."""
    await fill(memory, *several(2))
    await fill(other, snapshot("extra", created_at=LATER), snapshot("extra too"))
    comparison = await copy_runs(memory, other)
    assert not comparison.agree
    assert comparison.complete
    assert outcomes(comparison) == {"new": 2, "same": 2, "extra": 2}
    assert len(await held(other)) == 4


REPLACED = {
    "other order": snapshot("r", step("c"), step("a"), step("b")),
    "other created_at": snapshot("r", step("a"), step("b"), step("c"), created_at=LATER),
    "other order and created_at": snapshot("r", step("c"), step("a"), step("b"), created_at=LATER),
    "more steps": snapshot("r", *(step(name) for name in "abcdef")),
    "more steps before": snapshot("r", *(step(name) for name in "defabc")),
    "other kind of number": snapshot("r", step("a", result=1.0), step("b"), step("c")),
    "other order of keys": snapshot(
        "r", step("a", result=1), step("b"), step("c"), input={"b": 1, "a": 1}
    ),
}


@pytest.mark.parametrize("name", REPLACED)
async def test_a_run_that_was_made_anew_replaces_the_older_one(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore, name: str
) -> None:
    """Under the same id, with its neighbours around it."""
    wanted = REPLACED[name]
    older = snapshot("r", step("a", result=1), step("b"), step("c"), input={"a": 1, "b": 1})
    await fill(other, older, *several(5))
    await fill(memory, wanted, *several(5))
    compared = await copy_runs(memory, other, write=False)
    assert outcomes(compared) == {"same": 5, "changed": 1}
    comparison = await copy_runs(memory, other)
    assert comparison.agree
    assert comparison.outcomes[Outcome.CHANGED] == 1
    assert await held(other) == await held(memory)


async def test_what_is_written_meanwhile_is_there_at_the_end(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """Runs that are made, changed or deleted after they were looked at."""
    first, second, third = several(3)
    await fill(memory, first, second)
    writing: list[asyncio.Task[None]] = []

    async def write() -> None:
        await fill(memory, third)
        await memory.upsert_step(second.run.run_task_id, step("s0", result="changed"))
        await memory.update_context(second.run.run_task_id, ["changed"])

    def on_run(copied: Copied) -> None:
        if len(writing) < 1:
            writing.append(asyncio.create_task(write()))

    comparison = await copy_runs(memory, other, on_run=on_run)
    await asyncio.gather(*writing)
    assert comparison.agree
    assert comparison.passes == 3
    assert await held(other) == await held(memory)
    assert len(await held(other)) == 3


async def test_a_source_that_is_written_to_all_the_time_is_reported(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """The copy ends after five passes, and does not report that both sides agree."""
    await fill(memory, *several(3))
    passes: list[int] = []

    def on_pass(number: int) -> None:
        passes.append(number)
        writing.append(asyncio.create_task(memory.update_context("run-00000", ["changed", number])))

    writing: list[asyncio.Task[None]] = []
    comparison = await copy_runs(memory, other, on_pass=on_pass)
    await asyncio.gather(*writing)
    assert passes == [1, 2, 3, 4, 5]
    assert (comparison.passes, comparison.complete, comparison.agree) == (5, False, False)


async def test_a_claim_at_the_destination_outlives_an_update_and_none_is_copied(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """Claims belong to their own database."""
    one, two = several(2)
    await fill(memory, one, two)
    await memory.claim_run(one.run.run_task_id, owner="source", lease_s=3600)
    await fill(other, RunSnapshot(two.run, two.steps[:2]))
    claim = await other.claim_run(two.run.run_task_id, owner="destination", lease_s=3600)
    assert claim is not None
    assert (await copy_runs(memory, other)).agree
    assert await other.renew_claim(claim)
    assert await other.claim_run(one.run.run_task_id, owner="another", lease_s=3600)


def unfinished() -> list[object]:
    """Return the tasks of a copy that have not ended."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("_process")]


# -- failures --------------------------------------------------------------------------


async def test_a_failure_of_the_destination_is_an_error_of_the_package(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore, tmp_path: Path
) -> None:
    """As it is raised by the store: no group of errors, and nothing is left running."""
    await fill(memory, *several(100))
    await execute(f"sqlite:///{tmp_path}/other.db", "DROP TABLE steps")
    with pytest.raises(SchemaMismatchError, match="dropped or altered"):
        await copy_runs(memory, other)
    assert not unfinished()
    await memory.close()
    with pytest.raises(StoreClosedError):
        await copy_runs(memory, other)


async def test_a_copy_that_is_cancelled_goes_on_where_it_was(
    memory: ResumableWorkflowStore, other: ResumableWorkflowStore
) -> None:
    """At any moment; nothing is left running, and nothing is doubled."""
    await fill(memory, *several(150))
    for seconds in (0.0, 0.005, 0.02, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await copy_runs(memory, other)
        assert not unfinished()
    comparison = await copy_runs(memory, other)
    assert comparison.agree
    assert await held(other) == newest_first(*several(150))


async def test_large_runs_are_not_all_in_memory_at_once(
    sqlite_url: str, other: ResumableWorkflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when they are compared, nor when they wait to be written."""
    size = 1_000_000
    monkeypatch.setattr(copying, "_MAX_BYTES", 4 * size)
    async with open_store(sqlite_url) as source:
        for number in range(40):
            await put_run(source, snapshot(f"r{number}", step("s", result="x" * size)))
        for write in (True, False):
            tracemalloc.start()
            try:
                assert (await copy_runs(source, other, write=write)).agree
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 35 * size


async def test_runs_of_many_small_steps_are_not_all_in_memory_at_once(
    sqlite_url: str, other: ResumableWorkflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their objects weigh many times their text."""
    monkeypatch.setattr(copying, "_MAX_BYTES", 200_000)
    steps = [step(f"s{number}") for number in range(50)]
    async with open_store(sqlite_url) as source:
        await fill(source, *(snapshot(f"r{number}", *steps) for number in range(40)))
        tracemalloc.start()
        try:
            assert (await copy_runs(source, other)).agree
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_600_000


# -- one run ---------------------------------------------------------------------------


async def test_putting_a_run_makes_it_equal_or_leaves_it_alone(
    source: ResumableWorkflowStore,
) -> None:
    """What is new, changed, the same, and newer in the store."""
    first = snapshot("r", step("a", result=1), step("b"))
    assert await put_run(source, first) == Copied("r", Outcome.NEW, 2)
    assert await put_run(source, first) == Copied("r", Outcome.SAME, 2)
    for wanted in (
        snapshot("r", step("a", result=1.0), step("b")),
        snapshot("r", step("b"), step("a", result=1.0), updated_at=LATER),
        snapshot("r", step("a"), step("b"), updated_at=LATER, context={"\0": [2**70, -0.0]}),
    ):
        assert (await put_run(source, wanted)).outcome is Outcome.CHANGED
        assert await held(source) == [to_line(wanted)]
    assert await put_run(source, first) == Copied("r", Outcome.NEWER, 2)
    assert await held(source) == [to_line(wanted)]


# -- any two stores --------------------------------------------------------------------

TIMES = st.integers(0, 3).map(lambda number: DAY + number * MICROSECOND)
VALUES = st.sampled_from([None, 1, 1.0, True, -0.0, 2**70, "\0", "\ud800", {"a": 1, "b": [{}]}])
STEPS = st.lists(
    st.builds(
        step,
        st.sampled_from("abc"),
        result=VALUES,
        status=st.sampled_from(["pending", "failed"]),
        started_at=st.none() | TIMES,
    ),
    unique_by=lambda state: state.step_id,
    max_size=3,
)
RUNS = st.lists(
    st.builds(
        lambda name, steps, created_at, updated_at, context: snapshot(
            name, *steps, created_at=created_at, updated_at=updated_at, context=context
        ),
        st.sampled_from(["r", "r2", "\u4e2d", "\U0001f600", "\uffff"]),
        STEPS, TIMES, TIMES, VALUES,
    ),
    unique_by=lambda stored: stored.run.run_task_id,
    max_size=5,
)  # fmt: skip


def latest(held: RunSnapshot) -> datetime:
    times = [held.run.created_at, held.run.updated_at]
    return max(times + [state.started_at for state in held.steps if state.started_at is not None])


def ids(held: RunSnapshot) -> set[str]:
    return {state.step_id for state in held.steps}


@given(here=RUNS, there=RUNS)
def test_after_a_copy_any_two_stores_hold_the_same_but_what_is_newer_or_extra(
    here: list[RunSnapshot], there: list[RunSnapshot]
) -> None:
    """What is left alone is as it was, and all else is as at the source."""

    async def work() -> None:
        async with InMemoryWorkflowStore() as source, InMemoryWorkflowStore() as destination:
            await fill(source, *here)
            await fill(destination, *there)
            compared = await copy_runs(source, destination, write=False)
            assert await held(destination) == newest_first(*there)
            comparison = await copy_runs(source, destination)
            assert await held(source) == newest_first(*here)

            wanted = {stored.run.run_task_id: stored for stored in here}
            existing = {stored.run.run_task_id: stored for stored in there}
            alone = {
                name: stored
                for name, stored in existing.items()
                if name not in wanted
                or (
                    to_line(stored) != to_line(wanted[name])
                    and (
                        latest(stored) > latest(wanted[name])
                        or not ids(stored) <= ids(wanted[name])
                    )
                )
            }
            assert await held(destination) == newest_first(*{**wanted, **alone}.values())
            assert comparison.agree == (not alone)
            assert comparison.outcomes[Outcome.NEWER] + comparison.outcomes[Outcome.EXTRA] == len(
                alone
            )
            for outcome in (Outcome.NEW, Outcome.CHANGED, Outcome.NEWER, Outcome.EXTRA):
                assert compared.outcomes[outcome] == comparison.outcomes[outcome]

    asyncio.run(work())
