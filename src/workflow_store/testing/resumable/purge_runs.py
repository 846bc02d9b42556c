"""Tests of `purge_runs`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from ...errors import InvalidStateError, RunNotFoundError, StoreClosedError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore
from ..overlap import check_during
from ..samples import (
    BAD_TIMES,
    HOSTILE_IDENTIFIERS,
    MICROSECOND,
    START,
    UTC_PLUS_0545,
    a_run,
    a_step,
    create_runs,
    hour,
)

__all__ = ["PurgeContract"]


async def _create_old(
    store: ResumableWorkflowStore, count: int, *steps: TaskStatus, first: int = 0
) -> list[str]:
    """Create runs an hour apart, each with steps in these statuses; return ids, oldest first."""
    runs = [a_run(f"{n}", created_at=hour(n)) for n in range(first, first + count)]
    await create_runs(store, runs)
    for n, status in enumerate(steps):
        step = a_step(f"{n}", status=status)
        await asyncio.gather(*(store.upsert_step(run.run_task_id, step) for run in runs))
    return [run.run_task_id for run in runs]


async def _kept(store: ResumableWorkflowStore, names: Iterable[str]) -> list[str]:
    return [name for name in names if await store.get_run(name) is not None]


@pytest.mark.asyncio
class PurgeContract:
    """Tests of `purge_runs`: it deletes old runs in bounded transactions, the oldest first."""

    async def test_runs_created_earlier_are_purged_with_their_steps_and_no_others(
        self, store: ResumableWorkflowStore
    ) -> None:
        times = {
            "long ago": START - timedelta(days=1_000),
            "before": START - MICROSECOND,
            "at": START,
            "after": START + MICROSECOND,
        }
        for name, time in times.items():
            await store.create_run(a_run(name, created_at=time))
            await store.upsert_step(name, a_step(status=TaskStatus.COMPLETED, wait_task_id="w"))
        await store.update_context("before", "written a moment ago")
        assert await store.purge_runs(created_before=START.astimezone(UTC_PLUS_0545)) == 2
        assert await _kept(store, times) == ["at", "after"]
        for name in times:
            assert len(await store.list_steps(name)) == (name in {"at", "after"})
        assert await store.purge_runs(created_before=START) == 0

    async def test_purging_a_store_without_runs_deletes_none(
        self, store: ResumableWorkflowStore
    ) -> None:
        assert await store.purge_runs(created_before=START) == 0
        assert await store.purge_runs(created_before=START, only_terminal=False) == 0

    @pytest.mark.parametrize("status", TaskStatus)
    async def test_only_runs_whose_steps_have_all_ended_are_purged(
        self, store: ResumableWorkflowStore, status: TaskStatus
    ) -> None:
        await create_runs(
            store, (a_run(name, created_at=START) for name in ("one", "mixed", "none"))
        )
        await store.upsert_step("one", a_step(status=status))
        for n, step_status in enumerate((TaskStatus.COMPLETED, status, TaskStatus.FAILED)):
            await store.upsert_step("mixed", a_step(f"{n}", status=step_status))
        purged = await store.purge_runs(created_before=hour(1))
        assert purged == (3 if status.is_terminal else 1)
        kept = [] if status.is_terminal else ["one", "mixed"]
        assert await _kept(store, ("one", "mixed", "none")) == kept
        assert len(await store.list_steps("mixed")) == (0 if status.is_terminal else 3)

    async def test_runs_under_way_are_purged_where_that_is_asked_for(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = await _create_old(store, 3, *TaskStatus)
        assert await store.purge_runs(created_before=hour(2)) == 0
        assert await store.purge_runs(created_before=hour(2), only_terminal=False) == 2
        assert await _kept(store, names) == ["2"]
        assert await store.list_steps("0") == []

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 7, 10_000])
    async def test_batches_of_any_size_purge_the_same_runs(
        self, store: ResumableWorkflowStore, batch_size: int
    ) -> None:
        """Runs that must be kept lie between the runs that are purged."""
        ended = await _create_old(store, 6, TaskStatus.COMPLETED)
        under_way = await _create_old(store, 6, TaskStatus.RUNNING, first=10)
        await create_runs(store, (a_run(f"new {name}", created_at=hour(50)) for name in ended))
        await create_runs(store, (a_run(name, created_at=hour(0)) for name in under_way[:3]))
        purged = await store.purge_runs(created_before=hour(40), batch_size=batch_size)
        assert purged == 6
        assert await _kept(store, ended) == []
        assert await _kept(store, under_way) == under_way
        assert len(await _kept(store, (f"new {name}" for name in ended))) == 6

    async def test_the_oldest_runs_are_purged_first(self, store: ResumableWorkflowStore) -> None:
        """If a run is deleted, an older run that is read after it is deleted, too."""
        names = await _create_old(store, 12, TaskStatus.COMPLETED)

        async def purge() -> None:
            assert await store.purge_runs(created_before=hour(50), batch_size=1) == 12

        async def check() -> None:
            kept = await _kept(store, (names[-1], names[5], names[0]))
            assert kept == [names[-1], names[5], names[0]][: len(kept)]

        await check_during(purge(), check)
        assert await _kept(store, names) == []

    async def test_a_cancelled_purge_leaves_whole_runs_and_a_second_one_goes_on(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = await _create_old(store, 12, TaskStatus.COMPLETED, TaskStatus.FAILED)
        for pauses in (0, 1, 3, 9):
            purging = asyncio.ensure_future(store.purge_runs(created_before=hour(50), batch_size=1))
            for _ in range(pauses):
                await asyncio.sleep(0.001)
            purging.cancel()
            await asyncio.wait([purging])
            kept = await _kept(store, reversed(names))
            assert kept == names[::-1][: len(kept)]  # the oldest are gone first
            for name in names:
                # The batch that was in progress may be completed meanwhile.
                run, steps = await store.get_run(name), await store.list_steps(name)
                assert len(steps) in {0, 2}
                if steps:
                    assert run is not None
                else:
                    assert await store.get_run(name) is None
        kept = await _kept(store, names)
        assert await store.purge_runs(created_before=hour(50)) <= len(kept)
        assert await _kept(store, names) == []

    async def test_two_purges_at_once_count_each_run_once(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = await _create_old(store, 20, TaskStatus.COMPLETED)
        counts = await asyncio.gather(
            *(store.purge_runs(created_before=hour(50), batch_size=3) for _ in range(3))
        )
        assert sum(counts) == 20 - len(await _kept(store, names))
        await store.purge_runs(created_before=hour(50))
        assert await _kept(store, names) == []

    async def test_a_step_that_begins_while_its_run_is_purged_is_kept_with_it_or_refused(
        self, store: ResumableWorkflowStore
    ) -> None:
        """The run is kept with the new step, or the write raises `RunNotFoundError`."""
        names = await _create_old(store, 20, TaskStatus.COMPLETED)
        running = a_step("begins", status=TaskStatus.RUNNING)
        outcomes = await asyncio.gather(
            store.purge_runs(created_before=hour(50), batch_size=4),
            *(store.upsert_step(name, running) for name in reversed(names)),
            return_exceptions=True,
        )
        kept = await _kept(store, names)
        assert outcomes[0] == 20 - len(kept)
        for name, outcome in zip(reversed(names), outcomes[1:], strict=True):
            assert outcome is None if name in kept else isinstance(outcome, RunNotFoundError)

    async def test_a_purged_run_is_as_one_that_was_never_created(
        self, store: ResumableWorkflowStore
    ) -> None:
        """A late write raises `RunNotFoundError`; a new run under the same id has no steps."""
        for identifier in HOSTILE_IDENTIFIERS:
            await store.create_run(a_run(identifier, created_at=START))
            await store.upsert_step(identifier, a_step(identifier, status=TaskStatus.CANCELED))
        purged = await store.purge_runs(created_before=hour(1), batch_size=5)
        assert purged == len(HOSTILE_IDENTIFIERS)
        for identifier in HOSTILE_IDENTIFIERS:
            with pytest.raises(RunNotFoundError):
                await store.upsert_step(identifier, a_step())
            await store.create_run(a_run(identifier))
            assert await store.list_steps(identifier) == []

    async def test_a_bad_argument_purges_nothing(self, store: ResumableWorkflowStore) -> None:
        names = await _create_old(store, 1)
        for time in (*BAD_TIMES, None):
            with pytest.raises(InvalidStateError):
                await store.purge_runs(created_before=time)
        bad_sizes: tuple[Any, ...] = (0, -1, 10_001, 2**70, True, None, 1.0, "10")
        for size in bad_sizes:
            with pytest.raises(InvalidStateError):
                await store.purge_runs(created_before=hour(50), batch_size=size)
        assert await _kept(store, names) == names

    async def test_a_closed_store_purges_nothing(self, store: ResumableWorkflowStore) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await store.purge_runs(created_before=START)
        finally:
            await store.open()
