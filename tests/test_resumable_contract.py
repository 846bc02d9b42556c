"""The kit for a `ResumableWorkflowStore`, whole, and what memory alone can be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from workflow_store import InMemoryWorkflowStore, ResumableWorkflowStore
from workflow_store.testing import ResumableWorkflowStoreContract, a_run


class TestOurStores(ResumableWorkflowStoreContract):
    """Memory."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[ResumableWorkflowStore]:
        async with InMemoryWorkflowStore() as store:
            yield store


def test_no_part_of_the_kit_hides_a_test_of_another() -> None:
    """Of two tests of one name, only one would be run."""
    names = Counter(
        name
        for part in ResumableWorkflowStoreContract.__mro__
        for name in vars(part)
        if name.startswith("test_")
    )
    assert [name for name, count in names.items() if count > 1] == []


async def test_tokens_of_a_store_in_memory_grow_across_closing() -> None:
    """A claim from before never fits a run that came after."""
    store = InMemoryWorkflowStore()
    tokens = []
    for _ in range(2):
        async with store:
            await store.create_run(a_run())
            claim = await store.claim_run("run", owner="me")
            assert claim is not None
            tokens.append(claim.token)
    assert tokens[0] < tokens[1]
