"""The contract of which runs a filter lets through, test by test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from ...errors import InvalidStateError
from ...state import TaskStatus, WorkflowExecutionState
from ...store import ResumableWorkflowStore
from ..ages import BAD_TIMES, ELSEWHERE, MICROSECOND, START, create, hour
from ..samples import BAD_IDENTIFIERS, HOSTILE_IDENTIFIERS, a_run, a_step
from .list_runs_paging import listed

__all__ = ["Filters"]

_IDENTIFIERS = ("agent_id", "thread_id", "user_id", "workspace_id")


class Filters:
    @pytest.mark.parametrize("name", _IDENTIFIERS)
    async def test_runs_are_filtered_by_an_identifier_byte_by_byte(
        self, store: ResumableWorkflowStore, name: str
    ) -> None:
        await store.create_run(a_run("none of them"))
        await create(
            store, (a_run(f"{n}", **{name: value}) for n, value in enumerate(HOSTILE_IDENTIFIERS))
        )
        for n, value in enumerate(HOSTILE_IDENTIFIERS):
            assert await listed(store, **{name: value}) == [f"{n}"]
        assert await listed(store, **{name: "nothing has this"}) == []

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
        assert sorted(await listed(store, step_status=status)) == ["mixed", "twice"]

    async def test_times_are_bounds_that_are_not_reached_themselves(
        self, store: ResumableWorkflowStore
    ) -> None:
        times = (START - MICROSECOND, START, START + MICROSECOND)
        await create(store, (a_run(f"{n}", created_at=time) for n, time in enumerate(times)))
        for bound in (START, START.astimezone(ELSEWHERE)):
            assert await listed(store, created_after=bound) == ["2"]
            assert await listed(store, created_before=bound) == ["0"]
        assert await listed(store, created_after=times[0], created_before=times[2]) == ["1"]
        assert await listed(store, created_after=times[2], created_before=times[0]) == []

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
            assert await listed(store, **options) == expected, names
            assert await listed(store, **options, limit=3) == expected, names

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
