"""Tests of `claim_run`."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

import pytest

from ...errors import ClaimLostError, RunNotFoundError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore, RunClaim
from ..samples import HOSTILE_IDENTIFIERS, a_run, a_step
from .leases import LONG_S, Leases, a_claim, state_of

__all__ = ["ClaimRun"]


class ClaimRun(Leases):
    """`claim_run` returns a claim, or None while another owner's lease holds."""

    async def test_a_claim_tells_whose_it_is_and_until_when(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await store.claim_run("run", owner="me", lease_s=60)
        assert isinstance(claim, RunClaim)
        assert (claim.run_task_id, claim.owner, claim.lease_s) == ("run", "me", 60.0)
        assert (type(claim.token), type(claim.lease_s)) == (int, float)
        assert claim.expires_at.tzinfo is UTC
        longer = await a_claim(store, lease_s=31_536_000)
        assert longer.expires_at - claim.expires_at > timedelta(days=364)
        default = await store.claim_run("run", owner="me")
        assert default is not None
        assert default.lease_s == 30.0

    async def test_nobody_else_gets_a_run_while_its_lease_holds(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        for owner in ("other", "ME", "me "):
            assert await store.claim_run("run", owner=owner, lease_s=LONG_S) is None
        assert await store.claim_abandoned_runs(owner="other") == []
        assert (await store.renew_claim(claim)).token == claim.token

    async def test_a_run_whose_lease_ran_out_is_for_everybody(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (claim,) = await self.expired_claims(store)
        taken = await a_claim(store, owner="other")
        assert taken.token > claim.token
        assert await store.claim_run("run", owner="me") is None

    async def test_a_released_run_is_for_everybody(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        await store.release_claim(await a_claim(store))
        await a_claim(store, owner="other")
        assert await store.claim_run("run", owner="me") is None

    async def test_an_owner_may_claim_again_and_loses_the_old_claim(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        old = await a_claim(store)
        new = await a_claim(store)
        assert new.token > old.token
        with pytest.raises(ClaimLostError):
            await store.renew_claim(old)
        await store.release_claim(old)
        assert await store.claim_run("run", owner="other") is None
        await store.renew_claim(new)

    async def test_a_claim_anew_has_the_lease_of_its_own(
        self, store: ResumableWorkflowStore
    ) -> None:
        """The lease of a new claim replaces that of the owner's previous claim."""
        await store.create_run(a_run())
        await a_claim(store)
        await self.expired_claims(store)
        await a_claim(store, owner="other", lease_s=self.short_lease_s)
        await a_claim(store, owner="other")
        await self.wait_for_expiry()
        assert await store.claim_run("run", owner="me") is None

    async def test_a_claim_needs_its_run(self, store: ResumableWorkflowStore) -> None:
        with pytest.raises(RunNotFoundError) as caught:
            await store.claim_run("nothing", owner="me")
        assert caught.value.run_task_id == "nothing"
        await store.create_run(a_run())
        await a_claim(store)
        await store.delete_run("run")
        with pytest.raises(RunNotFoundError):
            await store.claim_run("run", owner="me")

    async def test_runs_and_owners_of_claims_are_compared_byte_by_byte(
        self, store: ResumableWorkflowStore
    ) -> None:
        owners = dict(zip(HOSTILE_IDENTIFIERS, reversed(HOSTILE_IDENTIFIERS), strict=True))
        await store.create_run(a_run("unclaimed"))
        for run_task_id, owner in owners.items():
            await store.create_run(a_run(run_task_id))
            claim = await a_claim(store, run_task_id, owner=owner)
            assert (claim.run_task_id, claim.owner) == (run_task_id, owner)
        for run_task_id, owner in owners.items():
            for other in HOSTILE_IDENTIFIERS:
                claimed = await store.claim_run(run_task_id, owner=other, lease_s=LONG_S)
                assert (claimed is not None) == (other == owner)

    async def test_tokens_grow_with_every_claim(self, store: ResumableWorkflowStore) -> None:
        tokens = []
        for _ in range(2):  # the second time, the run has been deleted
            await store.create_run(a_run())
            first = await a_claim(store)
            again = await a_claim(store)
            await store.release_claim(again)
            (expired,) = await self.expired_claims(store, owner="another")
            taken = await a_claim(store, owner="other", lease_s=self.short_lease_s)
            await self.wait_for_expiry()
            (abandoned,) = await store.claim_abandoned_runs(owner="me")
            tokens += [claim.token for claim in (first, again, expired, taken, abandoned)]
            await store.delete_run("run")
        assert tokens == sorted({*tokens})
        assert len(tokens) == 10

    async def test_claims_change_nothing_else_of_a_run(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run(context={"a": 1}))
        await store.upsert_step("run", a_step(status=TaskStatus.RUNNING))
        before = await state_of(store)
        await store.release_claim(await store.renew_claim(await a_claim(store)))
        await self.expired_claims(store)
        await store.claim_abandoned_runs(owner="other")
        assert await state_of(store) == before

    async def test_creating_a_run_again_keeps_its_claim(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await store.create_run(a_run(input="again"))
        assert await store.claim_run("run", owner="other") is None
        assert (await store.renew_claim(claim)).token == claim.token

    async def test_deleting_a_run_drops_its_claim(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await store.delete_run("run")
        await store.create_run(a_run())
        assert (await a_claim(store, owner="other")).token > claim.token

    async def test_of_many_that_claim_a_run_at_once_one_gets_it(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        for owners in (range(20), range(20, 40)):
            claims = await asyncio.gather(
                *(store.claim_run("run", owner=f"{n}", lease_s=LONG_S) for n in owners)
            )
            (claim,) = (claim for claim in claims if claim is not None)
            await store.renew_claim(claim)
            await store.release_claim(claim)

    async def test_of_many_that_take_over_a_run_at_once_one_gets_it(
        self, store: ResumableWorkflowStore
    ) -> None:
        """The previous owner is one of them, with a claim and with a renewal."""
        await store.create_run(a_run())
        (old,) = await self.expired_claims(store)

        async def renewed() -> list[RunClaim]:
            try:
                return [await store.renew_claim(old._replace(lease_s=LONG_S))]
            except ClaimLostError:
                return []

        async def claimed(owner: str) -> list[RunClaim]:
            claim = await store.claim_run("run", owner=owner, lease_s=LONG_S)
            return [] if claim is None else [claim]

        outcomes = await asyncio.gather(
            *(claimed(f"{n}") for n in range(5)),
            store.claim_abandoned_runs(owner="a", lease_s=LONG_S),
            renewed(),
            store.claim_abandoned_runs(owner="b", lease_s=LONG_S),
            *(claimed(f"{n}") for n in range(5, 10)),
        )
        (claim,) = (claim for outcome in outcomes for claim in outcome)
        await store.renew_claim(claim)
