"""Tests of `list_runs`: pages, limits and cursors."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from ...errors import InvalidStateError, StoreClosedError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore, RunPage
from ..samples import HOSTILE_IDENTIFIERS, MICROSECOND, START, a_run, a_step, create_runs, hour

__all__ = ["ListRunsPaging", "listed_ids"]


async def listed_ids(store: ResumableWorkflowStore, **options: Any) -> list[str]:
    """Return the ids of all listed runs, read page by page."""
    ids: list[str] = []
    page = await store.list_runs(**options)
    ids += [run.run_task_id for run in page.runs]
    while page.next_cursor is not None:
        page = await store.list_runs(**options, cursor=page.next_cursor)
        assert page.runs
        ids += [run.run_task_id for run in page.runs]
        assert len(ids) == len({*ids})
    return ids


class ListRunsPaging:
    """No run is skipped or repeated while others are added; `limit` is 1 to 1,000."""

    async def test_a_page_has_at_most_as_many_runs_as_its_limit(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create_runs(store, (a_run(f"{n}") for n in range(51)))
        for limit in (1, 2, 50):
            page = await store.list_runs(limit=limit)
            assert len(page.runs) == limit
            assert page.next_cursor is not None
        assert len((await store.list_runs()).runs) == 50

    async def test_the_last_page_has_no_cursor(self, store: ResumableWorkflowStore) -> None:
        await create_runs(store, (a_run(f"{n}") for n in range(4)))
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
        """Some of the runs have the same age."""
        await create_runs(store, (a_run(f"{n}", created_at=hour(n // 3)) for n in range(8)))
        expected = [f"{n}" for n in reversed(range(8))]
        for limit in range(1, 10):
            assert await listed_ids(store, limit=limit) == expected

    @pytest.mark.parametrize("limit", range(1, 9))
    async def test_a_run_is_given_once_while_others_are_added_and_deleted(
        self, store: ResumableWorkflowStore, limit: int
    ) -> None:
        """Before, behind and at the position of the reader."""
        stay = [f"stays {n}" for n in range(8)]
        await create_runs(store, (a_run(name, created_at=hour(n)) for n, name in enumerate(stay)))
        leave = [f"leaves {n}" for n in range(8)]
        await create_runs(store, (a_run(name, created_at=hour(n)) for n, name in enumerate(leave)))
        listed: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = await store.list_runs(limit=limit, cursor=cursor)
            listed += [run.run_task_id for run in page.runs]
            assert len(listed) == len({*listed})
            assert not any(name.startswith("newest") for name in listed)
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
        assert [name for name in listed if name in stay] == stay[::-1]

    async def test_the_limit_may_change_from_page_to_page(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create_runs(store, (a_run(f"{n}", created_at=hour(n)) for n in range(9)))
        listed, cursor = [], None
        for limit in (1, 3, 2, 1_000):
            page = await store.list_runs(limit=limit, cursor=cursor)
            listed.append([run.run_task_id for run in page.runs])
            cursor = page.next_cursor
        assert listed == [["8"], ["7", "6", "5"], ["4", "3"], ["2", "1", "0"]]
        assert cursor is None

    async def test_a_cursor_can_be_used_again(self, store: ResumableWorkflowStore) -> None:
        await create_runs(store, (a_run(f"{n}", created_at=hour(n)) for n in range(4)))
        cursor = (await store.list_runs(limit=2)).next_cursor
        assert isinstance(cursor, str)
        second = await store.list_runs(limit=2, cursor=cursor)
        assert await store.list_runs(limit=2, cursor=cursor) == second

    async def test_a_cursor_goes_on_after_a_run_that_was_deleted(
        self, store: ResumableWorkflowStore
    ) -> None:
        await create_runs(store, (a_run(f"{n}", created_at=hour(n)) for n in range(4)))
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
        await create_runs(store, (a_run(name) for name in HOSTILE_IDENTIFIERS[:3]))
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
