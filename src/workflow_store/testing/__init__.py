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
"""

import pytest

pytest.register_assert_rewrite("workflow_store.testing.contract")

from .contract import WorkflowStoreContract  # noqa: E402 - after its asserts were registered
from .samples import a_run, a_step  # noqa: E402

__all__ = ["WorkflowStoreContract", "a_run", "a_step"]
