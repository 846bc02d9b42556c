"""The contract of a store as tests, and samples for tests of one's own.

Install `workflow-store[testing]`, subclass `WorkflowStoreContract` in a test module, and add
a fixture `store` that yields your store, open and empty:

    import pytest_asyncio
    from workflow_store.testing import WorkflowStoreContract

    class TestMyStore(WorkflowStoreContract):
        @pytest_asyncio.fixture
        async def store(self):
            async with MyStore() as store:
                yield store

A store that passes these tests keeps the contract of the seven methods. The stores of this
package run the same tests.

`ResumableWorkflowStoreContract` is the whole contract of a `ResumableWorkflowStore`. A store
with only some of its methods adds their classes to `WorkflowStoreContract`: `SnapshotContract`,
`CommitStepContract`, `ListingContract`, `WaitingStepContract`, `PurgeContract` or
`ClaimsContract`.

Class attributes adapt the tests to a slow or small store; each class documents its own.
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)

# pytest rewrites the asserts of modules that are imported after their registration.
# https://docs.pytest.org/en/stable/how-to/writing_plugins.html#assertion-rewriting
from .claims import ClaimsContract  # noqa: E402
from .core import WorkflowStoreContract  # noqa: E402
from .resumable import ResumableWorkflowStoreContract  # noqa: E402
from .resumable.commit_step import CommitStepContract  # noqa: E402
from .resumable.find_waiting_step import WaitingStepContract  # noqa: E402
from .resumable.list_runs import ListingContract  # noqa: E402
from .resumable.load_run import SnapshotContract  # noqa: E402
from .resumable.purge_runs import PurgeContract  # noqa: E402
from .samples import HOSTILE_VALUES, a_run, a_step, exact  # noqa: E402

__all__ = [
    "HOSTILE_VALUES",
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
    "exact",
]
