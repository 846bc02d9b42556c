"""The contract of a `WorkflowStore`: the seven methods, opening and closing."""

from __future__ import annotations

import pytest

from .concurrency import Concurrency
from .open_close import OpenClose
from .runs import Runs
from .steps import Steps
from .values import Values

__all__ = ["WorkflowStoreContract"]


@pytest.mark.asyncio
class WorkflowStoreContract(Runs, Steps, Values, Concurrency, OpenClose):
    """The contract of a `WorkflowStore`: the seven methods, opening and closing.

    A subclass has a fixture `store` that yields an open, empty store for each test. In
    pytest-asyncio's strict mode, which is the default, use `pytest_asyncio.fixture`.

    Attributes:
        large_value_bytes: the size of the largest value that is written, about, as JSON in
            UTF-8. Lower it if the store has a limit.
        patience_s: how long closing may take to complete the calls made before, in seconds: a
            bound against a hang.
    """
