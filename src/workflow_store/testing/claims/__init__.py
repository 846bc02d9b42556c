"""The tests of claims: one module per method, and invalid arguments here."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ...errors import InvalidStateError, StoreClosedError
from ...store import ResumableWorkflowStore, RunClaim
from ..samples import BAD_IDENTIFIERS, a_run
from .claim_abandoned_runs import ClaimAbandonedRuns
from .claim_run import ClaimRun
from .fenced import Fenced
from .leases import LONG_S, WRITES, Leases, a_claim
from .renew_and_release import RenewAndRelease

__all__ = ["ClaimsContract"]

_BAD_LEASES: tuple[Any, ...] = (
    0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, 31_536_000.1, 10**400, True, None, "30",
    timedelta(seconds=30),
)  # fmt: skip


class ClaimArguments(Leases):
    """A bad argument is an `InvalidStateError`; nothing is claimed, renewed or released."""

    async def test_a_claim_with_a_bad_argument_is_refused(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        await self.expired_claims(store)
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
        """Only a `RunClaim` with valid fields is accepted."""
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
        for value in wrong:
            with pytest.raises(InvalidStateError):
                await store.renew_claim(value)
            with pytest.raises(InvalidStateError):
                await store.release_claim(value)
            with pytest.raises(InvalidStateError):
                store.fenced(value)
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
class ClaimsContract(ClaimRun, ClaimAbandonedRuns, RenewAndRelease, ClaimArguments, Fenced):
    """Tests of claims, leases and fenced writes.

    They cover `claim_run`, `claim_abandoned_runs`, `renew_claim`, `release_claim` and `fenced`.

    Attributes:
        short_lease_s: the length of a lease that is to expire, in seconds. Raise it if the store
            has a minimum, or rounds leases up.
        expiry_margin_s: how much longer than `short_lease_s` a test waits for the expiry, in
            seconds. It exceeds the resolution of the clock that leases go by.
    """
