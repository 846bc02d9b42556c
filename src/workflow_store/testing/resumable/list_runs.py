"""The contract of listing runs: their order, their summaries, and the whole."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from ...state import RunSummary, TaskStatus
from ...store import ResumableWorkflowStore, RunPage
from ..ages import ELSEWHERE, MICROSECOND, START, create, hour
from ..samples import HOSTILE_IDENTIFIERS, a_run, a_step
from .list_runs_filters import Filters
from .list_runs_paging import Pages, listed

__all__ = ["ListingContract"]


class _Order:
    async def test_a_store_without_runs_lists_none(self, store: ResumableWorkflowStore) -> None:
        page = await store.list_runs()
        assert isinstance(page, RunPage)
        assert page == RunPage([], None)

    async def test_the_newest_run_is_listed_first(self, store: ResumableWorkflowStore) -> None:
        ages = {"b": 2, "d": 0, "a": 3, "c": 1}
        for run_task_id, age in ages.items():
            await store.create_run(a_run(run_task_id, created_at=hour(age)))
        await store.create_run(a_run("e", created_at=hour(3) + MICROSECOND))
        assert await listed(store) == ["e", "a", "b", "c", "d"]

    async def test_runs_of_one_age_are_listed_by_id_downwards_byte_by_byte(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create(store, (a_run(name, created_at=START) for name in HOSTILE_IDENTIFIERS))
        expected = sorted(HOSTILE_IDENTIFIERS, key=str.encode, reverse=True)
        for limit in (1, 5, 50):
            assert await listed(store, limit=limit) == expected

    async def test_a_run_created_again_is_listed_once_where_it_now_belongs(
        self, store: ResumableWorkflowStore
    ) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.create_run(a_run("0", created_at=hour(9), agent_id="new"))
        assert await listed(store) == ["0", "2", "1"]
        assert await listed(store, agent_id="new") == ["0"]

    async def test_a_deleted_run_is_not_listed(self, store: ResumableWorkflowStore) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.delete_run("1")
        assert await listed(store) == ["2", "0"]

    async def test_runs_of_any_age_are_listed(self, store: ResumableWorkflowStore) -> None:
        first = datetime(1, 1, 1, tzinfo=UTC)
        last = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        times = [first, first + MICROSECOND, datetime(1970, 1, 1, tzinfo=UTC), last]
        await create(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        assert await listed(store, limit=1) == ["3", "2", "1", "0"]
        page = await store.list_runs()
        assert [run.created_at for run in page.runs] == times[::-1]
        assert await listed(store, created_after=first, created_before=last) == ["2", "1"]


class _Summaries:
    async def test_a_summary_is_the_run_without_its_json_values(
        self, store: ResumableWorkflowStore
    ) -> None:
        run = a_run(
            "full",
            workspace_id="workspace",
            entry_point="main",
            input={"secret": 1},
            context={"secret": 2},
            created_at=hour(1).astimezone(ELSEWHERE),
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
        await create(store, (a_run(f"{n}", created_at=hour(n)) for n in range(3)))
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
        await store.create_run(a_run())
        page = await store.list_runs()
        page.runs[0].agent_id = "changed"
        page.runs[0].step_counts[TaskStatus.FAILED] += 1
        page.runs.clear()
        (run,) = (await store.list_runs()).runs
        assert (run.agent_id, run.step_counts.total()) == ("agent", 0)


@pytest.mark.asyncio
class ListingContract(_Order, _Summaries, Filters, Pages):
    """What `list_runs` promises."""
