"""Tests of `create_run`, `get_run`, `update_context` and `delete_run`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ...errors import RunNotFoundError
from ...store import WorkflowStore
from ..samples import a_run, a_step, exact, step_ids

__all__ = ["Runs"]


class Runs:
    """Creating a run again replaces its fields and keeps its steps; deleting it deletes them."""

    async def test_a_run_comes_back_as_it_was_created(self, store: WorkflowStore) -> None:
        run = a_run(
            workspace_id="workspace",
            entry_point="main",
            input={"question": "why"},
            context={"so far": []},
        )
        await store.create_run(run)
        assert await store.get_run("run") == run

    async def test_optional_fields_of_a_run_may_be_none(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        run = await store.get_run("run")
        assert run is not None
        assert (run.workspace_id, run.entry_point, run.input, run.context) == (None, None, {}, {})

    async def test_a_run_that_is_not_there_is_none(self, store: WorkflowStore) -> None:
        assert await store.get_run("nothing") is None

    async def test_creating_again_replaces_every_field(self, store: WorkflowStore) -> None:
        await store.create_run(a_run(workspace_id="w", entry_point="e", context={"old": 1}))
        other = a_run(
            agent_id="agent 2",
            thread_id="thread 2",
            user_id="user 2",
            definition={"steps": []},
            input=[2],
            context="new",
            created_at=datetime(2001, 1, 1, tzinfo=UTC),
            updated_at=datetime(2002, 2, 2, tzinfo=UTC),
        )
        await store.create_run(other)
        assert await store.get_run("run") == other

    async def test_creating_again_keeps_the_steps(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        for step_id in ("b", "a"):
            await store.upsert_step("run", a_step(step_id, result=step_id))
        await store.create_run(a_run(input="again"))
        assert await store.list_steps("run") == [a_step("b", result="b"), a_step("a", result="a")]

    async def test_an_update_of_the_context_changes_nothing_else_but_the_time(
        self, store: WorkflowStore
    ) -> None:
        long_ago = datetime(2001, 1, 1, tzinfo=UTC)
        run = a_run(workspace_id="w", input=1, created_at=long_ago, updated_at=long_ago)
        await store.create_run(run)
        before = datetime.now(UTC)
        await store.update_context("run", {"new": [1, 2]})
        changed = await store.get_run("run")
        assert changed is not None
        assert before <= changed.updated_at <= datetime.now(UTC)
        run.context, run.updated_at = {"new": [1, 2]}, changed.updated_at
        assert changed == run

    async def test_a_context_is_replaced_whole(self, store: WorkflowStore) -> None:
        await store.create_run(a_run(context={"old": 1}))
        contexts: tuple[Any, ...] = ({"new": 2}, None, [], 0, "")
        for context in contexts:
            await store.update_context("run", context)
            run = await store.get_run("run")
            assert run is not None
            assert exact(run.context) == exact(context)

    async def test_an_update_of_the_context_needs_the_run(self, store: WorkflowStore) -> None:
        with pytest.raises(RunNotFoundError) as caught:
            await store.update_context("nothing", {})
        assert caught.value.run_task_id == "nothing"
        assert await store.get_run("nothing") is None

    async def test_deleting_a_run_drops_its_steps_and_no_others(self, store: WorkflowStore) -> None:
        for run_task_id in ("run", "other"):
            await store.create_run(a_run(run_task_id))
            await store.upsert_step(run_task_id, a_step())
        await store.delete_run("run")
        assert await store.get_run("run") is None
        assert await store.get_step("run", "step") is None
        assert await store.list_steps("run") == []
        assert await store.get_run("other") is not None
        assert await step_ids(store, "other") == ["step"]

    async def test_deleting_a_run_that_is_not_there_is_no_error(self, store: WorkflowStore) -> None:
        await store.delete_run("nothing")
        await store.create_run(a_run())
        await store.delete_run("run")
        await store.delete_run("run")

    async def test_a_run_created_again_after_its_deletion_has_no_steps(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        await store.delete_run("run")
        await store.create_run(a_run())
        assert await store.list_steps("run") == []
