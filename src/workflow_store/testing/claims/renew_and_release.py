"""Tests of `renew_claim` and `release_claim`."""

from __future__ import annotations

import asyncio
from datetime import UTC

import pytest

from ...errors import ClaimLostError
from ...store import ResumableWorkflowStore, RunClaim
from ..samples import a_run
from .leases import LONG_S, LOST, Leases, a_claim, state_of

__all__ = ["RenewAndRelease"]


class RenewAndRelease(Leases):
    """A claim can be renewed until it is lost; releasing a lost claim changes nothing."""

    async def test_a_renewed_claim_is_the_same_one_for_longer(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await asyncio.sleep(self.expiry_margin_s)
        renewed = await store.renew_claim(claim)
        assert isinstance(renewed, RunClaim)
        assert renewed.expires_at > claim.expires_at
        assert renewed.expires_at.tzinfo is UTC
        assert renewed._replace(expires_at=claim.expires_at) == claim
        await asyncio.sleep(self.expiry_margin_s)
        assert (await store.renew_claim(claim)).expires_at > renewed.expires_at

    async def test_a_renewal_is_for_the_lease_of_the_claim_that_is_given(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await store.renew_claim(claim._replace(lease_s=self.short_lease_s))
        await self.wait_for_expiry()
        assert [held.run_task_id for held in await store.claim_abandoned_runs(owner="me")] == [
            "run"
        ]

    async def test_a_lapsed_claim_that_nobody_took_can_be_renewed(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (claim,) = await self.expired_claims(store)
        renewed = await store.renew_claim(claim._replace(lease_s=LONG_S))
        assert renewed.token == claim.token
        assert renewed.expires_at > claim.expires_at
        assert await store.claim_run("run", owner="other") is None
        assert await store.claim_abandoned_runs(owner="other") == []

    @pytest.mark.parametrize("way", LOST)
    async def test_a_lost_claim_cannot_be_renewed(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run())
        claim = await self.lost_claim(store, way)
        with pytest.raises(ClaimLostError) as caught:
            await store.renew_claim(claim)
        assert (caught.value.run_task_id, caught.value.token) == ("run", claim.token)

    @pytest.mark.parametrize("way", ["taken over", "taken over as abandoned"])
    async def test_releasing_a_claim_that_was_taken_over_leaves_the_new_one(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run())
        await store.release_claim(await self.lost_claim(store, way))
        assert await store.claim_run("run", owner="me") is None

    @pytest.mark.parametrize("way", LOST)
    async def test_releasing_a_lost_claim_is_no_error(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run())
        claim = await self.lost_claim(store, way)
        before = await state_of(store)
        await store.release_claim(claim)
        await store.release_claim(claim)
        assert await state_of(store) == before
        assert await store.claim_abandoned_runs(owner="me") == []

    async def test_a_lapsed_claim_can_be_released(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        (claim,) = await self.expired_claims(store)
        await store.release_claim(claim)
        assert await store.claim_abandoned_runs(owner="other") == []
        with pytest.raises(ClaimLostError):
            await store.renew_claim(claim)
