"""The contract of a `ResumableWorkflowStore`: one module per method, several methods here."""

from __future__ import annotations

import pytest

from ...errors import ClaimLostError
from ...state import TaskStatus
from ...store import ResumableWorkflowStore, RunSnapshot, WaitingStep
from ..claims import ClaimsContract
from ..claims.leases import LOST, Leases, a_claim
from ..core import WorkflowStoreContract
from ..overlap import check_during_writes
from ..samples import a_run, a_step, hour
from .commit_step import CommitStepContract
from .find_waiting_step import WaitingStepContract
from .list_runs import ListingContract
from .load_run import SnapshotContract
from .purge_runs import PurgeContract

__all__ = ["ResumableWorkflowStoreContract"]


class AcrossMethods(Leases):
    """What one method has written, every other method sees."""

    async def test_a_snapshot_never_has_half_of_a_commit(
        self, store: ResumableWorkflowStore
    ) -> None:
        async def write(number: int) -> None:
            await store.commit_step("run", a_step(result=number), number)

        async def check() -> None:
            snapshot = await store.load_run("run")
            assert snapshot is not None
            assert [step.result for step in snapshot.steps] == [snapshot.run.context]

        await check_during_writes(store, write, check)

    async def test_a_committed_step_is_counted_waits_and_ends(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run())
        step = a_step(status=TaskStatus.INPUT_REQUIRED, wait_task_id="w")
        await store.commit_step("run", step, {})
        assert await store.find_waiting_step("w") == WaitingStep("run", step)
        (summary,) = (await store.list_runs(step_status=TaskStatus.INPUT_REQUIRED)).runs
        assert summary.step_counts.total() == 1
        snapshot = await store.load_run("run")
        assert snapshot is not None
        assert summary.updated_at == snapshot.run.updated_at
        assert await store.purge_runs(created_before=hour(1_000_000)) == 0
        await store.commit_step("run", a_step(status=TaskStatus.COMPLETED, wait_task_id="w"), {})
        assert await store.find_waiting_step("w") is None
        assert await store.purge_runs(created_before=hour(1_000_000)) == 1

    async def test_a_purged_run_is_claimed_listed_and_waiting_no_more(
        self, store: ResumableWorkflowStore
    ) -> None:
        await store.create_run(a_run(created_at=hour(0)))
        await store.upsert_step("run", a_step(wait_task_id="w"))
        claim = await a_claim(store)
        assert await store.purge_runs(created_before=hour(1), only_terminal=False) == 1
        assert await store.load_run("run") is None
        assert (await store.list_runs()).runs == []
        assert await store.find_waiting_step("w") is None
        with pytest.raises(ClaimLostError):
            await store.renew_claim(claim)
        with pytest.raises(ClaimLostError):
            await store.fenced(claim).create_run(a_run())
        await store.create_run(a_run())
        assert (await a_claim(store, owner="other")).token > claim.token

    @pytest.mark.parametrize("way", LOST)
    async def test_a_lost_claim_looks_and_purges_as_ever_through_its_fence(
        self, store: ResumableWorkflowStore, way: str
    ) -> None:
        """Reads and `purge_runs` of a fenced store do not check its claim."""
        await store.create_run(a_run())
        view = store.fenced(await self.lost_claim(store, way))
        run, step = a_run(created_at=hour(0)), a_step(wait_task_id="w")
        await store.create_run(run)
        await store.upsert_step("run", step)
        assert await view.load_run("run") == RunSnapshot(run, [step])
        assert await view.find_waiting_step("w") == WaitingStep("run", step)
        assert await view.list_runs() == await store.list_runs()
        assert len((await view.list_runs()).runs) == 1
        assert await view.purge_runs(created_before=hour(1), only_terminal=False) == 1
        assert await store.get_run("run") is None


@pytest.mark.asyncio
class ResumableWorkflowStoreContract(
    WorkflowStoreContract,
    SnapshotContract,
    CommitStepContract,
    ListingContract,
    WaitingStepContract,
    PurgeContract,
    ClaimsContract,
    AcrossMethods,
):
    """The contract of a `ResumableWorkflowStore`: the seven methods and all others.

    It combines all classes of this package. A subclass has a fixture `store`, as for
    `WorkflowStoreContract`, and may change their attributes.
    """
