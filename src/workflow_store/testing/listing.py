"""The contract of listing runs page by page, test by test."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest

from ..errors import InvalidStateError, StoreClosedError
from ..state import RunSummary, TaskStatus, WorkflowExecutionState
from ..store import ResumableWorkflowStore, RunPage
from .ages import BAD_TIMES, ELSEWHERE, MICROSECOND, START, create, hour
from .contract import BAD_IDENTIFIERS
from .samples import HOSTILE_IDENTIFIERS, a_run, a_step

__all__ = ["ListingContract"]

_IDENTIFIERS = ("agent_id", "thread_id", "user_id", "workspace_id")


async def _listed(store: ResumableWorkflowStore, **options: Any) -> list[str]:
    """The ids of all runs, page by page."""
    listed: list[str] = []
    page = await store.list_runs(**options)
    listed += [run.run_task_id for run in page.runs]
    while page.next_cursor is not None:
        page = await store.list_runs(**options, cursor=page.next_cursor)
        assert page.runs
        listed += [run.run_task_id for run in page.runs]
    return listed


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
        assert await _listed(store) == ["e", "a", "b", "c", "d"]

    async def test_runs_of_one_age_are_listed_by_id_downwards_byte_by_byte(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create(store, (a_run(name, created_at=START) for name in HOSTILE_IDENTIFIERS))
        expected = sorted(HOSTILE_IDENTIFIERS, key=str.encode, reverse=True)
        for limit in (1, 5, 50):
            assert await _listed(store, limit=limit) == expected

    async def test_a_run_created_again_is_listed_once_where_it_now_belongs(
        self, store: ResumableWorkflowStore
    ) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.create_run(a_run("0", created_at=hour(9), agent_id="new"))
        assert await _listed(store) == ["0", "2", "1"]
        assert await _listed(store, agent_id="new") == ["0"]

    async def test_a_deleted_run_is_not_listed(self, store: ResumableWorkflowStore) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", created_at=hour(n)))
        await store.delete_run("1")
        assert await _listed(store) == ["2", "0"]

    async def test_runs_of_any_age_are_listed(self, store: ResumableWorkflowStore) -> None:
        first = datetime(1, 1, 1, tzinfo=UTC)
        last = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        times = [first, first + MICROSECOND, datetime(1970, 1, 1, tzinfo=UTC), last]
        await create(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        assert await _listed(store, limit=1) == ["3", "2", "1", "0"]
        page = await store.list_runs()
        assert [run.created_at for run in page.runs] == times[::-1]
        assert await _listed(store, created_after=first, created_before=last) == ["2", "1"]


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


class _Filters:
    @pytest.mark.parametrize("name", _IDENTIFIERS)
    async def test_runs_are_filtered_by_an_identifier_byte_by_byte(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        await store.create_run(a_run("none of them"))
        await create(
            store, (a_run(f"{n}", **{name: value}) for n, value in enumerate(HOSTILE_IDENTIFIERS))
        )
        for n, value in enumerate(HOSTILE_IDENTIFIERS):
            assert await _listed(store, **{name: value}) == [f"{n}"]
        assert await _listed(store, **{name: "nothing has this"}) == []

    @pytest.mark.parametrize("status", TaskStatus)
    async def test_runs_are_filtered_by_a_status_that_one_of_their_steps_is_in(
        self, store: ResumableWorkflowStore, status: TaskStatus
    ) -> None:
        await create(store, (a_run(name) for name in ("none", "other", "mixed", "twice", "was")))
        (*_, other) = (each for each in TaskStatus if each is not status)
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
        assert sorted(await _listed(store, step_status=status)) == ["mixed", "twice"]

    async def test_times_are_bounds_that_are_not_reached_themselves(
        self, store: ResumableWorkflowStore
    ) -> None:
        times = (START - MICROSECOND, START, START + MICROSECOND)
        await create(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        for bound in (START, START.astimezone(ELSEWHERE)):
            assert await _listed(store, created_after=bound) == ["2"]
            assert await _listed(store, created_before=bound) == ["0"]
        assert await _listed(store, created_after=times[0], created_before=times[2]) == ["1"]
        assert await _listed(store, created_after=times[2], created_before=times[0]) == []

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
        await create(store, runs)
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
            assert await _listed(store, **options) == expected, names
            assert await _listed(store, **options, limit=3) == expected, names

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


class _Pages:
    async def test_a_page_has_at_most_as_many_runs_as_its_limit(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create(store, (a_run(f"{n}") for n in range(51)))
        for limit in (1, 2, 50):
            page = await store.list_runs(limit=limit)
            assert len(page.runs) == limit
            assert page.next_cursor is not None
        assert len((await store.list_runs()).runs) == 50

    async def test_the_last_page_has_no_cursor(self, store: ResumableWorkflowStore) -> None:
        await create(store, (a_run(f"{n}") for n in range(4)))
        for limit in (4, 5, 1_000):
            page = await store.list_runs(limit=limit)
            assert (len(page.runs), page.next_cursor) == (4, None)
        first = await store.list_runs(limit=2)
        second = await store.list_runs(limit=2, cursor=first.next_cursor)
        assert (len(second.runs), second.next_cursor) == (2, None)

    async def test_a_limit_out_of_range_is_refused(self, store: ResumableWorkflowStore) -> None:
        bad_limits: tuple[Any, ...] = (0, -1, 1_001, 2**70, True, None, 1.0, "10")
        for limit in bad_limits:
            with pytest.raises(InvalidStateError):
                await store.list_runs(limit=limit)

    async def test_pages_of_any_size_give_every_run_once(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Some of the runs are of one age."""
        await create(store, (a_run(f"{n}", created_at=hour(n // 3)) for n in range(8)))
        expected = [f"{n}" for n in reversed(range(8))]
        for limit in range(1, 10):
            assert await _listed(store, limit=limit) == expected

    @pytest.mark.parametrize("limit", range(1, 9))
    async def test_a_run_is_given_once_while_others_are_added_and_deleted(
        self, store: ResumableWorkflowStore, limit: int
    ) -> None:
        """Before, behind and at the place where the reader is."""
        stay = [f"stays {n}" for n in range(8)]
        await create(store, (a_run(name, created_at=hour(n)) for n, name in enumerate(stay)))
        leave = [f"leaves {n}" for n in range(8)]
        await create(store, (a_run(name, created_at=hour(n)) for n, name in enumerate(leave)))
        given: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = await store.list_runs(limit=limit, cursor=cursor)
            given += [run.run_task_id for run in page.runs]
            cursor, pages = page.next_cursor, pages + 1
            await store.create_run(a_run(f"newest {pages}", created_at=hour(10 + pages)))
            if pages < 4:
                last = page.runs[-1].created_at
                await store.create_run(a_run(f"z as old {pages}", created_at=last))
                await store.create_run(a_run(f"a as old {pages}", created_at=last))
                await store.create_run(a_run(f"oldest {pages}", created_at=hour(-pages)))
            for run_task_id in {page.runs[-1].run_task_id, *leave[:1]}.intersection(leave):
                await store.delete_run(run_task_id)
                leave.remove(run_task_id)
        assert [name for name in given if name in stay] == stay[::-1]
        assert len(given) == len({*given})
        assert not any(name.startswith("newest") for name in given)

    async def test_the_limit_may_change_from_page_to_page(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create(store, (a_run(f"{n}", created_at=hour(n)) for n in range(9)))
        given, cursor = [], None
        for limit in (1, 3, 2, 1_000):
            page = await store.list_runs(limit=limit, cursor=cursor)
            given.append([run.run_task_id for run in page.runs])
            cursor = page.next_cursor
        assert given == [["8"], ["7", "6", "5"], ["4", "3"], ["2", "1", "0"]]
        assert cursor is None

    async def test_a_cursor_can_be_used_again(self, store: ResumableWorkflowStore) -> None:
        await create(store, (a_run(f"{n}", created_at=hour(n)) for n in range(4)))
        cursor = (await store.list_runs(limit=2)).next_cursor
        assert isinstance(cursor, str)
        second = await store.list_runs(limit=2, cursor=cursor)
        assert await store.list_runs(limit=2, cursor=cursor) == second

    async def test_a_cursor_goes_on_after_a_run_that_was_deleted(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create(store, (a_run(f"{n}", created_at=hour(n)) for n in range(4)))
        cursor = (await store.list_runs(limit=2)).next_cursor
        await store.delete_run("2")
        assert [run.run_task_id for run in (await store.list_runs(cursor=cursor)).runs] == [
            "1",
            "0",
        ]
        for run_task_id in ("0", "1"):
            await store.delete_run(run_task_id)
        assert await store.list_runs(cursor=cursor) == RunPage([], None)

    async def test_a_cursor_of_other_filters_is_refused(
        self, store: ResumableWorkflowStore
    ) -> None:
        for n in range(3):
            await store.create_run(a_run(f"{n}", workspace_id="w", created_at=hour(1)))
            await store.upsert_step(f"{n}", a_step())
        filters: list[dict[str, Any]] = [
            {},
            {"agent_id": "agent"},
            {"thread_id": "thread"},
            {"user_id": "user"},
            {"workspace_id": "w"},
            {"agent_id": "agent", "user_id": "user"},
            {"step_status": TaskStatus.PENDING},
            {"created_after": START},
            {"created_after": START + MICROSECOND},
            {"created_before": datetime(9999, 1, 1, tzinfo=UTC)},
        ]
        for one in filters:
            cursor = (await store.list_runs(**one, limit=1)).next_cursor
            assert cursor is not None
            assert len((await store.list_runs(**one, cursor=cursor)).runs) == 2
            for other in filters:
                if other != one:
                    with pytest.raises(InvalidStateError):
                        await store.list_runs(**other, cursor=cursor)
            with pytest.raises(InvalidStateError):
                await store.list_runs(**{**one, "agent_id": "other"}, cursor=cursor)

    async def test_what_is_no_cursor_is_refused(self, store: ResumableWorkflowStore) -> None:
        await create(store, (a_run(name) for name in HOSTILE_IDENTIFIERS[:3]))
        cursor = (await store.list_runs(limit=1)).next_cursor
        assert cursor is not None
        truncated = [cursor[:size] for size in range(len(cursor))]
        foreign: tuple[Any, ...] = (
            base64.urlsafe_b64encode(b"[" * 100_000).decode(),
            "x", "!", "é", "\0", "\ud800", "null", "W10", "e30", "0", "x" * 10_000, 7, 0, True,
            b"", cursor.encode(), [cursor], {},
        )  # fmt: skip
        for wrong in (*truncated, *foreign):
            with pytest.raises(InvalidStateError):
                await store.list_runs(cursor=wrong)

    async def test_a_closed_store_lists_nothing(self, store: ResumableWorkflowStore) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await store.list_runs()
        finally:
            await store.open()


@pytest.mark.asyncio
class ListingContract(_Order, _Summaries, _Filters, _Pages):
    """What `list_runs` promises."""
