"""Tests of `open` and `close`."""

from __future__ import annotations

import asyncio

import pytest

from ...errors import StoreClosedError, WorkflowStoreError
from ...store import WorkflowStore
from ..samples import CALLS, a_run, a_step

__all__ = ["OpenClose"]


class OpenClose:
    """`open` and `close` may be repeated; `close` completes the calls made before it."""

    patience_s: float = 300.0

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_closed_store_refuses_every_call(self, store: WorkflowStore, call: str) -> None:
        await store.close()
        try:
            with pytest.raises(StoreClosedError):
                await CALLS[call](store, "run")
        finally:
            await store.open()

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_call_from_another_event_loop_is_refused(
        self, store: WorkflowStore, call: str
    ) -> None:
        """A store belongs to the event loop in which it was opened."""

        async def elsewhere() -> None:
            await CALLS[call](store, "run")

        run = a_run()
        await store.create_run(run)
        with pytest.raises(WorkflowStoreError, match="event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert await store.get_run("run") == run
        assert await store.list_steps("run") == []

    async def test_opening_and_closing_twice_is_no_error(self, store: WorkflowStore) -> None:
        await store.open()
        await store.create_run(a_run())
        await store.open()
        assert await store.get_run("run") is not None
        await store.close()
        await store.close()
        await store.open()
        await store.create_run(a_run())

    async def test_closing_completes_the_calls_that_were_made_before(
        self, store: WorkflowStore
    ) -> None:
        await store.create_run(a_run())
        tasks = [asyncio.ensure_future(store.upsert_step("run", a_step(f"{n}"))) for n in range(10)]
        await asyncio.sleep(0)
        await store.close()
        try:
            outcomes = await asyncio.wait_for(asyncio.gather(*tasks), timeout=self.patience_s)
            assert outcomes == [None] * 10
        finally:
            await store.open()
