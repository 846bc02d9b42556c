"""The contract of sharing runs among processes, test by test."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from typing import Any

import pytest

from ..errors import ClaimLostError, InvalidStateError, RunNotFoundError, StoreClosedError
from ..state import TaskStatus
from ..store import ResumableWorkflowStore, RunClaim
from .contract import BAD_IDENTIFIERS
from .fencing import Fencing
from .leases import LONG_S, LOST, SHORT_S, WRITES, a_claim, lapsed_claims, state_of
from .samples import HOSTILE_IDENTIFIERS, a_run, a_step

__all__ = ["ClaimsContract"]

_BAD_LEASES: tuple[Any, ...] = (
    0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, 31_536_000.1, 10**400, True, None, "30",
    timedelta(seconds=30),
)  # fmt: skip


class _Claiming:
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
        (claim,) = await lapsed_claims(store)
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
        await store.create_run(a_run())
        await a_claim(store)
        await lapsed_claims(store)
        await a_claim(store, owner="other", lease_s=SHORT_S)
        await a_claim(store, owner="other")
        await asyncio.sleep(SHORT_S + 0.1)
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
        await store.create_run(a_run("nobody's"))
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
            (lapsed,) = await lapsed_claims(store, owner="another")
            taken = await a_claim(store, owner="other", lease_s=SHORT_S)
            await asyncio.sleep(SHORT_S + 0.1)
            (abandoned,) = await store.claim_abandoned_runs(owner="me")
            tokens += [claim.token for claim in (first, again, lapsed, taken, abandoned)]
            await store.delete_run("run")
        assert tokens == sorted({*tokens})
        assert len(tokens) == 10

    async def test_claims_change_nothing_else_of_a_run(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run(context={"a": 1}))
        await store.upsert_step("run", a_step(status=TaskStatus.RUNNING))
        before = await state_of(store)
        await store.release_claim(await store.renew_claim(await a_claim(store)))
        await lapsed_claims(store)
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
        """Its old owner may be one of them, with a claim or with a renewal."""
        await store.create_run(a_run())
        (old,) = await lapsed_claims(store)

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


class _Abandoned:
    async def test_only_runs_whose_lease_ran_out_are_abandoned(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = ("never claimed", "held", "released", "released late", "renewed", "deleted",
                 "claimed anew", "abandoned")  # fmt: skip
        for name in names:
            await store.create_run(a_run(name))
        await store.release_claim(await a_claim(store, "released"))
        await a_claim(store, "held")
        lapsed = {claim.run_task_id: claim for claim in await lapsed_claims(store, *names[3:])}
        await store.release_claim(lapsed["released late"])
        await store.renew_claim(lapsed["renewed"]._replace(lease_s=LONG_S))
        await store.delete_run("deleted")
        await a_claim(store, "claimed anew")
        (claim,) = await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
        assert (claim.run_task_id, claim.owner, claim.lease_s) == ("abandoned", "other", LONG_S)
        assert claim.token > lapsed["abandoned"].token
        assert claim.expires_at > lapsed["abandoned"].expires_at

    async def test_a_run_taken_over_is_abandoned_no_more_while_the_new_lease_holds(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (old,) = await lapsed_claims(store)
        (claim,) = await store.claim_abandoned_runs(owner="other", lease_s=LONG_S)
        assert await store.claim_abandoned_runs(owner="other") == []
        assert await store.claim_run("run", owner="me") is None
        with pytest.raises(ClaimLostError):
            await store.renew_claim(old)
        await store.renew_claim(claim)

    async def test_an_owner_gets_back_what_it_abandoned_itself(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (old,) = await lapsed_claims(store)
        (claim,) = await store.claim_abandoned_runs(owner="me")
        assert claim.token > old.token

    async def test_the_longest_lapsed_run_comes_first(self, store: ResumableWorkflowStore) -> None:
        """Whichever was created, claimed or named first."""
        names = ["m", "z", "a", "b"]
        for name in sorted(names):
            await store.create_run(a_run(name))
        late, *_ = await lapsed_claims(store, "b", "m")
        await lapsed_claims(store, "z")
        await lapsed_claims(store, "a")
        await store.renew_claim(late)
        await asyncio.sleep(SHORT_S + 0.1)
        claims = await store.claim_abandoned_runs(owner="other")
        assert [claim.run_task_id for claim in claims] == names

    async def test_no_more_runs_are_taken_over_than_asked_for(
        self, store: ResumableWorkflowStore
    ) -> None:
        names = [f"{n:02}" for n in range(14)]
        for name in names:
            await store.create_run(a_run(name))
        await lapsed_claims(store, names[0])  # longer ago than the others
        await lapsed_claims(store, *names[1:])
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
        await lapsed_claims(store, *names)
        taken: list[RunClaim] = []
        while True:
            claims = await asyncio.gather(
                *(
                    store.claim_abandoned_runs(owner=f"{n}", lease_s=LONG_S, limit=3)
                    for n in range(6)
                )
            )
            if not any(claims):
                break
            taken += [claim for each in claims for claim in each]
        assert sorted(claim.run_task_id for claim in taken) == sorted(names)
        assert len({claim.token for claim in taken}) == len(names)
        for claim in taken:
            await store.renew_claim(claim)


class _Renewing:
    async def test_a_renewed_claim_is_the_same_one_for_longer(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await asyncio.sleep(0.05)
        renewed = await store.renew_claim(claim)
        assert isinstance(renewed, RunClaim)
        assert renewed.expires_at > claim.expires_at
        assert renewed.expires_at.tzinfo is UTC
        assert renewed._replace(expires_at=claim.expires_at) == claim
        await asyncio.sleep(0.05)
        assert (await store.renew_claim(claim)).expires_at > renewed.expires_at

    async def test_a_renewal_is_for_the_lease_of_the_claim_that_is_given(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        await store.renew_claim(claim._replace(lease_s=SHORT_S))
        await asyncio.sleep(SHORT_S + 0.1)
        assert [held.run_task_id for held in await store.claim_abandoned_runs(owner="me")] == [
            "run"
        ]

    async def test_a_lapsed_claim_that_nobody_took_can_be_renewed(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        (claim,) = await lapsed_claims(store)
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
        claim = await LOST[way](store)
        with pytest.raises(ClaimLostError) as caught:
            await store.renew_claim(claim)
        assert (caught.value.run_task_id, caught.value.token) == ("run", claim.token)

    @pytest.mark.parametrize("way", ["taken over", "taken over as abandoned"])
    async def test_releasing_a_claim_that_was_taken_over_leaves_the_new_one(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run())
        await store.release_claim(await LOST[way](store))
        assert await store.claim_run("run", owner="me") is None

    @pytest.mark.parametrize("way", LOST)
    async def test_releasing_a_lost_claim_is_no_error(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        await store.create_run(a_run())
        claim = await LOST[way](store)
        before = await state_of(store)
        await store.release_claim(claim)
        await store.release_claim(claim)
        assert await state_of(store) == before
        assert await store.claim_abandoned_runs(owner="me") == []

    async def test_a_lapsed_claim_can_be_released(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        (claim,) = await lapsed_claims(store)
        await store.release_claim(claim)
        assert await store.claim_abandoned_runs(owner="other") == []
        with pytest.raises(ClaimLostError):
            await store.renew_claim(claim)


class _Arguments:
    async def test_a_claim_with_a_bad_argument_is_refused(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await lapsed_claims(store)
        for identifier in BAD_IDENTIFIERS:
            with pytest.raises(InvalidStateError):
                await store.claim_run(identifier, owner="me")
            with pytest.raises(InvalidStateError):
                await store.claim_run("run", owner=identifier)
            with pytest.raises(InvalidStateError):
                await store.claim_abandoned_runs(owner=identifier)
        for lease_s in _BAD_LEASES:
            with pytest.raises(InvalidStateError):
                await store.claim_run("run", owner="me", lease_s=lease_s)
            with pytest.raises(InvalidStateError):
                await store.claim_abandoned_runs(owner="me", lease_s=lease_s)
        bad_limits: tuple[Any, ...] = (0, -1, 1_001, 2**70, True, None, 1.0, "10")
        for limit in bad_limits:
            with pytest.raises(InvalidStateError):
                await store.claim_abandoned_runs(owner="me", limit=limit)
        with pytest.raises(InvalidStateError):
            await store.claim_run("nothing", owner="")
        assert len(await store.claim_abandoned_runs(owner="other")) == 1

    async def test_what_is_no_claim_is_refused(self, store: ResumableWorkflowStore) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        wrong_token: Any = str(claim.token)
        wrong: tuple[Any, ...] = (
            None,
            "run",
            claim.token,
            tuple(claim),
            claim._asdict(),
            claim._replace(run_task_id=""),
            RunClaim("run", "me", wrong_token, LONG_S, claim.expires_at),
            claim._replace(lease_s=0.0),
            claim._replace(lease_s=math.nan),
        )
        for each in wrong:
            with pytest.raises(InvalidStateError):
                await store.renew_claim(each)
            with pytest.raises(InvalidStateError):
                await store.release_claim(each)
            with pytest.raises(InvalidStateError):
                store.fenced(each)
        await store.renew_claim(claim)

    async def test_a_closed_store_refuses_every_call_with_claims(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        claim = await a_claim(store)
        view = store.fenced(claim)
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.claim_run("run", owner="me"),
            lambda: store.claim_abandoned_runs(owner="me"),
            lambda: store.renew_claim(claim),
            lambda: store.release_claim(claim),
            lambda: view.renew_claim(claim),
            lambda: view.get_run("run"),
        ]
        await store.close()
        try:
            await view.open()
            for call in calls:
                with pytest.raises(StoreClosedError):
                    await call()
            for write in WRITES.values():
                with pytest.raises(StoreClosedError):
                    await write(view)
        finally:
            await store.open()


@pytest.mark.asyncio
class ClaimsContract(_Claiming, _Abandoned, _Renewing, _Arguments, Fencing):
    """What claims promise, and the writes that need one.

    That is `claim_run`, `claim_abandoned_runs`, `renew_claim`, `release_claim` and `fenced`.
    """
