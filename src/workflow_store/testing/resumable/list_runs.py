"""Tests of `list_runs`: order, summaries and filters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest

from ...errors import InvalidStateError
from ...state import RunSummary, TaskStatus, WorkflowExecutionState
from ...store import ResumableWorkflowStore, RunPage
from ..samples import (
    BAD_IDENTIFIERS,
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
from .list_runs_paging import ListRunsPaging, listed_ids

__all__ = ["ListingContract"]


_IDENTIFIERS = ("agent_id", "thread_id", "user_id", "workspace_id")


class ListRunsOrder:
    """The newest run is first; runs of the same age are in descending order of their ids."""

    async def test_a_store_without_runs_lists_none(self, store: ResumableWorkflowStore) -> None:
        page = await store.list_runs()
        assert isinstance(page, RunPage)
        assert page == RunPage([], None)

    async def test_the_newest_run_is_listed_first(self, store: ResumableWorkflowStore) -> None:
        ages = {"b": 2, "d": 0, "a": 3, "c": 1}
        for run_task_id, age in ages.items():
            await store.create_run(a_run(run_task_id, created_at=hour(age)))
        await store.create_run(a_run("e", created_at=hour(3) + MICROSECOND))
        assert await listed_ids(store) == ["e", "a", "b", "c", "d"]

    async def test_runs_of_one_age_are_listed_by_id_downwards_byte_by_byte(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create_runs(store, (a_run(name, created_at=START) for name in HOSTILE_IDENTIFIERS))
        expected = sorted(HOSTILE_IDENTIFIERS, key=str.encode, reverse=True)
        for limit in (1, 5, 50):
            assert await listed_ids(store, limit=limit) == expected

    async def test_a_run_created_again_is_listed_once_where_it_now_belongs(
        self, store: ResumableWorkflowStore
    ) -> None:
        """`create_run` replaces `created_at`, and with it the position in the list."""
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.create_run(a_run("0", created_at=hour(9), agent_id="new"))
        assert await listed_ids(store) == ["0", "2", "1"]
        assert await listed_ids(store, agent_id="new") == ["0"]

    async def test_a_deleted_run_is_not_listed(self, store: ResumableWorkflowStore) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.delete_run("1")
        assert await listed_ids(store) == ["2", "0"]

    async def test_runs_of_any_age_are_listed(self, store: ResumableWorkflowStore) -> None:
        first = datetime(1, 1, 1, tzinfo=UTC)
        last = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        times = [first, first + MICROSECOND, datetime(1970, 1, 1, tzinfo=UTC), last]
        await create_runs(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        assert await listed_ids(store, limit=1) == ["3", "2", "1", "0"]
        page = await store.list_runs()
        assert [run.created_at for run in page.runs] == times[::-1]
        assert await listed_ids(store, created_after=first, created_before=last) == ["2", "1"]


class RunSummaries:
    """A summary has the identifiers, both times and the step counts, and no JSON values."""

    async def test_a_summary_is_the_run_without_its_json_values(
        self, store: ResumableWorkflowStore
    ) -> None:
        run = a_run(
            "full",
            workspace_id="workspace",
            entry_point="main",
            input={"secret": 1},
            context={"secret": 2},
            created_at=hour(1).astimezone(UTC_PLUS_0545),
            updated_at=hour(2),
        )
        await store.create_run(run)
        await store.create_run(a_run("bare", created_at=hour(0), updated_at=hour(0)))
        full, bare = (await store.list_runs()).runs
        assert full == RunSummary(
            run_task_id="full",
            agent_id="agent",
            thread_id="thread",
            user_id="user",
            workspace_id="workspace",
            entry_point="main",
            created_at=hour(1),
            updated_at=hour(2),
        )
        assert (full.created_at.tzinfo, full.updated_at.tzinfo) == (UTC, UTC)
        assert (bare.workspace_id, bare.entry_point) == (None, None)
        for name in ("definition", "input", "context"):
            assert not hasattr(full, name)

    async def test_a_summary_has_the_time_of_the_last_write(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run(created_at=START, updated_at=START))
        await store.update_context("run", {})
        run = await store.get_run("run")
        (summary,) = (await store.list_runs()).runs
        assert run is not None
        assert summary.updated_at == run.updated_at > START
        assert summary.created_at == START

    async def test_steps_are_counted_by_their_status(self, store: ResumableWorkflowStore) -> None:
        await create_runs(store, (a_run(f"{n}", created_at=hour(n)) for n in range(3)))
        for n, status in enumerate((TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.RUNNING)):
            await store.upsert_step("1", a_step(f"{n}", status=status))
        await store.upsert_step("2", a_step("0", status=TaskStatus.PENDING))
        await store.upsert_step("2", a_step("0", status=TaskStatus.COMPLETED))
        two, one, none = (run.step_counts for run in (await store.list_runs()).runs)
        assert isinstance(one, Counter)
        assert {type(status) for status in one} == {TaskStatus}
        assert [one[status] for status in TaskStatus] == [0, 2, 0, 0, 1, 0]
        assert two == Counter({TaskStatus.COMPLETED: 1})
        assert none == Counter()
        assert none[TaskStatus.PENDING] == 0

    async def test_steps_are_counted_whichever_of_them_are_asked_for(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for status in TaskStatus:
            await store.upsert_step("run", a_step(status.value, status=status))
        (run,) = (await store.list_runs(step_status=TaskStatus.FAILED)).runs
        assert run.step_counts == Counter(TaskStatus)

    async def test_a_summary_and_the_store_are_apart(self, store: ResumableWorkflowStore) -> None:
        """Changing a returned page never changes the store."""
        await store.create_run(a_run())
        page = await store.list_runs()
        page.runs[0].agent_id = "changed"
        page.runs[0].step_counts[TaskStatus.FAILED] += 1
        page.runs.clear()
        (run,) = (await store.list_runs()).runs
        assert (run.agent_id, run.step_counts.total()) == ("agent", 0)


class ListRunsFilters:
    """A page has the runs that pass every filter; bounds of time are exclusive."""

    @pytest.mark.parametrize("name", _IDENTIFIERS)
    async def test_runs_are_filtered_by_an_identifier_byte_by_byte(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        await store.create_run(a_run("none of them"))
        await create_runs(
            store, (a_run(f"{n}", **{name: value}) for n, value in enumerate(HOSTILE_IDENTIFIERS))
        )
        for n, value in enumerate(HOSTILE_IDENTIFIERS):
            assert await listed_ids(store, **{name: value}) == [f"{n}"]
        assert await listed_ids(store, **{name: "nothing has this"}) == []

    @pytest.mark.parametrize("status", TaskStatus)
    async def test_runs_are_filtered_by_a_status_that_one_of_their_steps_is_in(
        self, store: ResumableWorkflowStore, status: TaskStatus
    ) -> None:
        await create_runs(
            store, (a_run(name) for name in ("none", "other", "mixed", "twice", "was"))
        )
        other = next(other for other in reversed(TaskStatus) if other is not status)
        for run_task_id, step_id, its_status in (
            ("other", "a", other),
            ("mixed", "a", other),
            ("mixed", "b", status),
            ("twice", "a", status),
            ("twice", "b", status),
            ("was", "a", status),
            ("was", "a", other),
        ):
            await store.upsert_step(run_task_id, a_step(step_id, status=its_status))
        assert sorted(await listed_ids(store, step_status=status)) == ["mixed", "twice"]

    async def test_times_are_bounds_that_are_not_reached_themselves(
        self, store: ResumableWorkflowStore
    ) -> None:
        """`created_after` and `created_before` are exclusive."""
        times = (START - MICROSECOND, START, START + MICROSECOND)
        await create_runs(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        for bound in (START, START.astimezone(UTC_PLUS_0545)):
            assert await listed_ids(store, created_after=bound) == ["2"]
            assert await listed_ids(store, created_before=bound) == ["0"]
        assert await listed_ids(store, created_after=times[0], created_before=times[2]) == ["1"]
        assert await listed_ids(store, created_after=times[2], created_before=times[0]) == []

    async def test_filters_together_give_the_runs_that_pass_each(
        self, store: ResumableWorkflowStore
    ) -> None:
        statuses = tuple(TaskStatus)[:3]
        runs = [
            a_run(
                f"{n:02}",
                **{name: f"{name} {n >> bit & 1}" for bit, name in enumerate(_IDENTIFIERS)},
                created_at=hour(n % 11),
            )
            for n in range(32)
        ]
        await create_runs(store, runs)
        steps = {run.run_task_id: statuses[n % 3] for n, run in enumerate(runs)}
        await asyncio.gather(
            *(store.upsert_step(name, a_step(status=status)) for name, status in steps.items())
        )
        filters: dict[str, tuple[Any, Callable[[WorkflowExecutionState], bool]]] = {
            "agent_id": ("agent_id 1", lambda run: run.agent_id == "agent_id 1"),
            "thread_id": ("thread_id 0", lambda run: run.thread_id == "thread_id 0"),
            "user_id": ("user_id 1", lambda run: run.user_id == "user_id 1"),
            "workspace_id": ("workspace_id 0", lambda run: run.workspace_id == "workspace_id 0"),
            "step_status": (statuses[1], lambda run: steps[run.run_task_id] is statuses[1]),
            "created_after": (hour(2), lambda run: run.created_at > hour(2)),
            "created_before": (hour(9), lambda run: run.created_at < hour(9)),
        }
        newest_first = sorted(runs, key=lambda run: (run.created_at, run.run_task_id), reverse=True)
        chosen = [(), *((name,) for name in filters), *combinations(filters, 2), tuple(filters)]
        for names in chosen:
            expected = [
                run.run_task_id
                for run in newest_first
                if all(filters[name][1](run) for name in names)
            ]
            options = {name: filters[name][0] for name in names}
            assert await listed_ids(store, **options) == expected, names
            assert await listed_ids(store, **options, limit=3) == expected, names

    async def test_a_bad_filter_is_refused(self, store: ResumableWorkflowStore) -> None:
        for name in _IDENTIFIERS:
            for identifier in BAD_IDENTIFIERS:
                if identifier is not None:
                    with pytest.raises(InvalidStateError):
                        await store.list_runs(**{name: identifier})
        for name in ("created_after", "created_before"):
            for time in BAD_TIMES:
                with pytest.raises(InvalidStateError):
                    await store.list_runs(**{name: time})
        bad_statuses: tuple[Any, ...] = ("no such status", "", 7, ["failed"])
        for status in bad_statuses:
            with pytest.raises(InvalidStateError):
                await store.list_runs(step_status=status)


@pytest.mark.asyncio
class ListingContract(ListRunsOrder, RunSummaries, ListRunsFilters, ListRunsPaging):
    """Tests of `list_runs`: order, summaries, filters and pages."""
