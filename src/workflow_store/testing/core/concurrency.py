"""Tests of concurrent and of cancelled calls."""

from __future__ import annotations

import asyncio

from ...errors import RunNotFoundError
from ...store import WorkflowStore
from ..samples import a_run, a_step, step_ids

__all__ = ["Concurrency"]


class Concurrency:
    """Concurrent calls are each applied completely or not at all, in one order for all readers."""

    async def test_writes_made_at_once_all_arrive_in_one_order(self, store: WorkflowStore) -> None:
        await store.create_run(a_run())
        names = [f"step {n}" for n in range(50)]
        await asyncio.gather(*(store.upsert_step("run", a_step(name)) for name in names))
        first, second = await asyncio.gather(step_ids(store), step_ids(store))
        assert sorted(first) == sorted(names)
        assert first == second

    async def test_writes_awaited_one_after_the_other_keep_their_order_beside_others(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())

        async def write(task: int) -> None:
            for n in range(10):
                await store.upsert_step("run", a_step(f"{task}:{n}"))

        await asyncio.gather(*(write(task) for task in range(8)))
        ids = await step_ids(store)
        for task in range(8):
            mine = [step_id for step_id in ids if step_id.startswith(f"{task}:")]
            assert mine == [f"{task}:{n}" for n in range(10)]

    async def test_a_step_first_written_by_many_at_once_is_one_step(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await asyncio.gather(
            *(store.upsert_step("run", a_step(result=n, error=str(n))) for n in range(30))
        )
        (step,) = await store.list_steps("run")
        assert step.error == str(step.result)

    async def test_a_write_to_a_missing_run_fails_alone(self, store: WorkflowStore) -> None:
        """Concurrent writes to an existing run succeed."""
        await store.create_run(a_run())
        outcomes = await asyncio.gather(
            *(store.upsert_step("run" if n % 2 else "nothing", a_step(f"{n}")) for n in range(20)),
            return_exceptions=True,
        )
        for n, outcome in enumerate(outcomes):
            assert outcome is None if n % 2 else isinstance(outcome, RunNotFoundError)
        assert sorted(await step_ids(store)) == sorted(f"{n}" for n in range(20) if n % 2)

    async def test_a_run_deleted_while_its_steps_are_written_leaves_none(
        self, store: WorkflowStore
    ) -> None:
        for _ in range(5):
            await store.create_run(a_run())
            outcomes = await asyncio.gather(
                *(store.upsert_step("run", a_step(f"{n}")) for n in range(10)),
                store.delete_run("run"),
                *(store.upsert_step("run", a_step(f"{n}")) for n in range(10, 20)),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} <= {type(None), RunNotFoundError}
            assert await store.list_steps("run") == []

    async def test_a_cancelled_call_is_whole_or_not_at_all_and_the_store_goes_on(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for n in range(20):
            task = asyncio.ensure_future(
                store.upsert_step("run", a_step("cancelled", result=n, error=str(n)))
            )
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await store.upsert_step("run", a_step("next", result=n))
            step = await store.get_step("run", "next")
            assert step is not None
            assert step.result == n
            cancelled = await store.get_step("run", "cancelled")
            assert cancelled is None or cancelled.error == str(cancelled.result)
