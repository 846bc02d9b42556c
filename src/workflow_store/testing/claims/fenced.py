"""Tests of `fenced`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ...errors import ClaimLostError, InvalidStateError, RunNotFoundError
from ...store import ResumableWorkflowStore
from ..samples import a_run, a_step
from .leases import LOST, WRITES, Leases, a_claim, state_of

__all__ = ["Fenced"]


class Fenced(Leases):
    """A write through `fenced` changes nothing once the claim is lost: `ClaimLostError`."""

    async def test_writes_through_a_fence_are_those_of_the_store(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        view = store.fenced(await a_claim(store))
        assert isinstance(view, ResumableWorkflowStore)
        run = a_run(input="fenced")
        await view.create_run(run)
        assert await store.get_run("run") == run
        await view.update_context("run", {"n": 1})
        await view.upsert_step("run", a_step("a", result=1))
        await view.commit_step("run", a_step("b"), {"n": 2})
        run, steps = await state_of(store)
        assert (run.input, run.context) == ("fenced", {"n": 2})
        assert steps == [a_step("a", result=1), a_step("b")]
        assert await state_of(view) == (run, steps)
        assert await view.get_step("run", "a") == steps[0]
        await view.delete_run("run")
        assert await state_of(store) == (None, [])

    @pytest.mark.parametrize("way", LOST)
    async def test_a_write_through_the_fence_of_a_lost_claim_changes_nothing(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run(context="before"))
        await store.upsert_step("run", a_step(result="before"))
        claim = await self.lost_claim(store, way)
        view = store.fenced(claim)
        before = await state_of(store)
        for write in WRITES.values():
            with pytest.raises(ClaimLostError) as caught:
                await write(view)
            assert (caught.value.run_task_id, caught.value.token) == ("run", claim.token)
            assert await state_of(store) == before

    async def test_the_fence_of_a_lost_claim_keeps_from_other_runs_too(
        self, store: ResumableWorkflowStore
    ) -> None:
        """A fenced store whose claim is lost writes to no run at all."""
        await store.create_run(a_run())
        await store.create_run(a_run("other"))
        view = store.fenced(await self.lost_claim(store, "released"))
        before = await state_of(store, "other")
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: view.create_run(a_run("other", input="fenced")),
            lambda: view.create_run(a_run("new")),
            lambda: view.update_context("other", "fenced"),
            lambda: view.update_context("nothing", "fenced"),
            lambda: view.upsert_step("other", a_step()),
            lambda: view.upsert_step("nothing", a_step()),
            lambda: view.commit_step("other", a_step(), "fenced"),
            lambda: view.commit_step("nothing", a_step(), "fenced"),
            lambda: view.delete_run("other"),
            lambda: view.delete_run("nothing"),
        ]
        for call in calls:
            with pytest.raises(ClaimLostError):
                await call()
        assert await state_of(store, "other") == before
        assert await store.get_run("new") is None

    async def test_a_bad_argument_is_told_of_even_where_the_claim_is_lost(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Arguments are validated before the claim is checked."""
        await store.create_run(a_run())
        view = store.fenced(await self.lost_claim(store, "released"))
        wrong: Any = None
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: view.create_run(wrong),
            lambda: view.create_run(a_run(input=b"")),
            lambda: view.update_context("", {}),
            lambda: view.update_context("run", b""),
            lambda: view.upsert_step("run", wrong),
            lambda: view.upsert_step("run", a_step(result=b"")),
            lambda: view.commit_step("run", a_step(result=b""), {}),
            lambda: view.commit_step("run", a_step(), b""),
            lambda: view.delete_run(""),
        ]
        for call in calls:
            with pytest.raises(InvalidStateError):
                await call()

    async def test_a_lapsed_claim_that_nobody_took_still_writes(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (claim,) = await self.expired_claims(store)
        view = store.fenced(claim)
        for write in WRITES.values():
            await write(view)
        assert await store.get_run("run") is None

    async def test_a_renewal_keeps_the_fences_of_the_claim(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        before = store.fenced(claim)
        after = store.fenced(await store.renew_claim(claim))
        await before.upsert_step("run", a_step("a"))
        await after.upsert_step("run", a_step("b"))
        await store.release_claim(claim)
        for view in (before, after):
            with pytest.raises(ClaimLostError):
                await view.upsert_step("run", a_step("c"))
        assert await store.list_steps("run") == [a_step("a"), a_step("b")]

    async def test_a_held_claim_lets_write_to_other_runs(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        view = store.fenced(await a_claim(store))
        await view.create_run(a_run("child"))
        await view.upsert_step("child", a_step())
        await view.commit_step("child", a_step("b"), 1)
        assert len(await store.list_steps("child")) == 2
        await view.delete_run("child")
        await view.delete_run("nothing")
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: view.update_context("nothing", {}),
            lambda: view.upsert_step("child", a_step()),
            lambda: view.commit_step("nothing", a_step(), {}),
        ]
        for call in calls:
            with pytest.raises(RunNotFoundError):
                await call()
        assert await store.get_run("run") is not None

    async def test_a_run_deleted_through_its_fence_is_closed_to_it(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Deleting the run ends its claim."""
        await store.create_run(a_run())
        view = store.fenced(await a_claim(store))
        await view.delete_run("run")
        for write in WRITES.values():
            with pytest.raises(ClaimLostError):
                await write(view)
        assert await store.get_run("run") is None

    async def test_of_two_deletions_at_once_through_a_fence_one_loses_the_claim(
        self, store: ResumableWorkflowStore
    ) -> None:
        """The other one deleted it."""
        await store.create_run(a_run())
        await store.create_run(a_run("other"))
        view = store.fenced(await a_claim(store))
        outcomes = await asyncio.gather(
            store.update_context("other", {}),  # keeps the store busy meanwhile
            view.delete_run("run"),
            view.delete_run("run"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(ClaimLostError) == 1
        assert outcomes.count(None) == 2

    async def test_a_run_created_again_through_its_fence_keeps_the_claim(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        view = store.fenced(await a_claim(store))
        await view.create_run(a_run(input="again"))
        await view.upsert_step("run", a_step("b"))
        assert await store.list_steps("run") == [a_step(), a_step("b")]

    async def test_a_lost_claim_reads_and_claims_as_ever_through_its_fence(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Reads and claim methods of a fenced store do not check its claim."""
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        lost = await self.lost_claim(store, "released")
        view = store.fenced(lost)
        assert await state_of(view) == await state_of(store)
        assert await view.get_step("run", "step") == a_step()
        assert await view.claim_abandoned_runs(owner="me") == []
        await view.release_claim(lost)
        with pytest.raises(ClaimLostError):
            await view.renew_claim(lost)
        claim = await a_claim(view)
        await view.renew_claim(claim)
        with pytest.raises(ClaimLostError):
            await view.update_context("run", "a view is of one claim")
        await view.fenced(claim).update_context("run", "another view is of another")
        await view.release_claim(claim)
        await a_claim(store, owner="other")

    async def test_a_fence_in_a_fence_is_that_of_the_other_claim_alone(
        self, store: ResumableWorkflowStore
    ) -> None:
        """`fenced` of a fenced store checks only the new claim."""
        for name in ("run", "other"):
            await store.create_run(a_run(name))
        one, other = await a_claim(store), await a_claim(store, "other")
        inner = store.fenced(one).fenced(other)
        await store.release_claim(one)
        await inner.update_context("run", "written")
        run = await store.get_run("run")
        assert run is not None
        assert run.context == "written"
        await store.release_claim(other)
        with pytest.raises(ClaimLostError) as caught:
            await inner.update_context("run", {})
        assert caught.value.run_task_id == "other"

    async def test_opening_and_closing_a_view_does_nothing(
        self, store: ResumableWorkflowStore
    ) -> None:
        """A fenced store is open for as long as the store that it belongs to."""
        await store.create_run(a_run())
        view = store.fenced(await a_claim(store))
        async with view as entered:
            await entered.upsert_step("run", a_step("a"))
        await view.close()
        await view.upsert_step("run", a_step("b"))
        await store.upsert_step("run", a_step("c"))
        assert len(await store.list_steps("run")) == 3

    async def test_nothing_is_written_through_a_fence_once_the_run_was_claimed_again(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Not even by writes that are in progress at that moment."""
        await store.create_run(a_run())

        async def write_until_lost(
            view: ResumableWorkflowStore, writer: str, claimed_again: asyncio.Event
        ) -> set[str]:
            written: set[str] = set()
            while True:
                step_id = f"{writer}:{len(written)}"
                must_fail = claimed_again.is_set()
                try:
                    await view.upsert_step("run", a_step(step_id))
                except ClaimLostError:
                    return written
                assert not must_fail
                written.add(step_id)
                await asyncio.sleep(0)

        expected: set[str] = set()
        for life in range(10):
            view = store.fenced(await a_claim(store))
            claimed_again = asyncio.Event()
            writers = [
                asyncio.ensure_future(write_until_lost(view, f"{life}:{n}", claimed_again))
                for n in range(8)
            ]
            for _ in range(life):
                await asyncio.sleep(0)
            await a_claim(store)
            claimed_again.set()
            steps = await store.list_steps("run")
            expected = expected.union(*(await asyncio.gather(*writers)))
            assert await store.list_steps("run") == steps
            assert {step.step_id for step in steps} == expected

    async def test_a_write_with_a_lost_claim_fails_alone(
        self, store: ResumableWorkflowStore
    ) -> None:
        """Concurrent writes with a valid claim, and those without a claim, succeed."""
        claims = []
        for n in range(12):
            await store.create_run(a_run(f"{n}"))
            claims.append(await a_claim(store, f"{n}"))
        for claim in claims[::3]:
            await store.release_claim(claim)
        views = [store if n % 3 == 1 else store.fenced(claim) for n, claim in enumerate(claims)]
        outcomes = await asyncio.gather(
            *(view.upsert_step(f"{n}", a_step("a")) for n, view in enumerate(views)),
            *(view.commit_step(f"{n}", a_step("b"), "after") for n, view in enumerate(views)),
            *(view.update_context(f"{n}", "after") for n, view in enumerate(views)),
            return_exceptions=True,
        )
        for n, outcome in enumerate(outcomes):
            if n % 3:
                assert outcome is None
            else:
                assert isinstance(outcome, ClaimLostError)
                assert outcome.run_task_id == f"{n % 12}"
        for n in range(12):
            run, steps = await state_of(store, f"{n}")
            assert run.context == ("after" if n % 3 else {})
            assert len(steps) == (2 if n % 3 else 0)
