"""The contract of a `WorkflowStore`, whole."""

from __future__ import annotations

import pytest

from .concurrency import Concurrency
from .open_close import Life
from .runs import Runs
from .steps import Steps
from .values import Values

__all__ = ["WorkflowStoreContract"]


@pytest.mark.asyncio
class WorkflowStoreContract(Runs, Steps, Values, Concurrency, Life):
    """What every `WorkflowStore` promises.

    A subclass gives a fixture `store`: the store, open and empty, for one test. With
    pytest-asyncio in strict mode, make it with `pytest_asyncio.fixture`.
    """
