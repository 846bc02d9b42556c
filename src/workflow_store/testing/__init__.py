"""The contract of a store as tests, for stores of your own.

Install `workflow-store[testing]`, subclass `WorkflowStoreContract` in a test module, and give
it a `store` fixture that yields your store, open and empty:

    import pytest_asyncio
    from workflow_store.testing import WorkflowStoreContract

    class TestMyStore(WorkflowStoreContract):
        @pytest_asyncio.fixture
        async def store(self):
            async with MyStore() as store:
                yield store

A store that passes is one. The stores of this package are put through the same class.

That is the contract of the seven methods. `ResumableWorkflowStoreContract` is that of a
`ResumableWorkflowStore`, whole. A store that has a part of it subclasses what it has, beside
`WorkflowStoreContract`: `SnapshotContract`, `CommitStepContract`, `ListingContract`,
`WaitingStepContract`, `PurgeContract` or `ClaimsContract`.
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)

# These come after their asserts were registered.
from .claims import ClaimsContract  # noqa: E402
from .core import WorkflowStoreContract  # noqa: E402
from .resumable import ResumableWorkflowStoreContract  # noqa: E402
from .resumable.commit_step import CommitStepContract  # noqa: E402
from .resumable.find_waiting_step import WaitingStepContract  # noqa: E402
from .resumable.list_runs import ListingContract  # noqa: E402
from .resumable.load_run import SnapshotContract  # noqa: E402
from .resumable.purge_runs import PurgeContract  # noqa: E402
from .samples import a_run, a_step  # noqa: E402

__all__ = [
    "ClaimsContract",
    "CommitStepContract",
    "ListingContract",
    "PurgeContract",
    "ResumableWorkflowStoreContract",
    "SnapshotContract",
    "WaitingStepContract",
    "WorkflowStoreContract",
    "a_run",
    "a_step",
]
