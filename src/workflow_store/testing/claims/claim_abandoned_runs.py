"""Tests of `claim_abandoned_runs`."""

from __future__ import annotations

import asyncio

import pytest

from ...errors import ClaimLostError
from ...store import ResumableWorkflowStore, RunClaim
from ..samples import a_run
from .leases import LONG_S, Leases, a_claim

__all__ = ["ClaimAbandonedRuns"]


class ClaimAbandonedRuns(Leases):
    """`claim_abandoned_runs` takes over runs whose lease expired without being released."""

    async def test_only_runs_whose_lease_ran_out_are_abandoned(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = ("never claimed", "held", "released", "released late", "renewed", "deleted",
                 "claimed anew", "abandoned")  # fmt: skip
        for name in names:
            await store.create_run(a_run(name))
        await store.release_claim(await a_claim(store, "released"))
        await a_claim(store, "held")
        expired = {
            claim.run_task_id: claim for claim in await self.expired_claims(store, *names[3:])
        }
        await store.release_claim(expired["released late"])
        await store.renew_claim(expired["renewed"]._replace(lease_s=LONG_S))
        await store.delete_run("deleted")
        await a_claim(store, "claimed anew")
        (claim,) = await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
        assert (claim.run_task_id, claim.owner, claim.lease_s) == ("abandoned", "other", LONG_S)
        assert claim.token > expired["abandoned"].token
        assert claim.expires_at > expired["abandoned"].expires_at

    async def test_a_run_taken_over_is_abandoned_no_more_while_the_new_lease_holds(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (old,) = await self.expired_claims(store)
        (claim,) = await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
        assert await store.claim_abandoned_runs(owner="other") == []
        assert await store.claim_run("run", owner="me") is None
        with pytest.raises(ClaimLostError):
            await store.renew_claim(old)
        await store.renew_claim(claim)

    async def test_an_owner_gets_back_what_it_abandoned_itself(
        self, store: ResumableWorkflowStore
    ) -> None:
        """`claim_abandoned_runs` also takes over the expired claims of its caller."""
        await store.create_run(a_run())
        (old,) = await self.expired_claims(store)
        (claim,) = await store.claim_abandoned_runs(owner="me")
        assert claim.token > old.token

    async def test_the_longest_lapsed_run_comes_first(self, store: ResumableWorkflowStore) -> None:
        """Not the run that was created or claimed first, or whose id sorts first."""
        names = ["m", "z", "a", "b"]
        for name in sorted(names):
            await store.create_run(a_run(name))
        late, *_ = await self.expired_claims(store, "b", "m")
        await self.expired_claims(store, "z")
        await self.expired_claims(store, "a")
        await store.renew_claim(late)
        await self.wait_for_expiry()
        claims = await store.claim_abandoned_runs(owner="other")
        assert [claim.run_task_id for claim in claims] == names

    async def test_no_more_runs_are_taken_over_than_asked_for(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = [f"{n:02}" for n in range(14)]
        for name in names:
            await store.create_run(a_run(name))
        await self.expired_claims(store, names[0])  # longer ago than the others
        await self.expired_claims(store, *names[1:])
        for limit, expected in ((1, 1), (2, 2), (None, 10), (1_000, 1), (1_000, 0)):
            options = {} if limit is None else {"limit": limit}
            claims = await store.claim_abandoned_runs(owner="other", lease_s=LONG_S, **options)
            assert len(claims) == expected
            if limit == 1:
                assert [claim.run_task_id for claim in claims] == names[:1]

    async def test_two_that_take_over_never_get_the_same_run(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = [f"{n}" for n in range(30)]
        for name in names:
            await store.create_run(a_run(name))
        await self.expired_claims(store, *names)
        taken: list[RunClaim] = []
        for _ in range(len(names) + 1):  # each round but the last takes over a run
            batches = await asyncio.gather(
                *(
                    store.claim_abandoned_runs(owner=f"{n}", lease_s=LONG_S, limit=3)
                    for n in range(6)
                )
            )
            if not any(batches):
                break
            taken += [claim for batch in batches for claim in batch]
        assert sorted(claim.run_task_id for claim in taken) == sorted(names)
        assert len({claim.token for claim in taken}) == len(names)
        for claim in taken:
            await store.renew_claim(claim)
