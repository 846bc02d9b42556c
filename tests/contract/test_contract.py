"""Our own stores keep the contract, and the kit needs the seven methods only."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from support.databases import checked_out, empty_tables
from support.host_project import Roles, roles_on
from support.waiting import until
from workflow_store import (
    InMemoryWorkflowStore,
    JsonValue,
    ResumableWorkflowStore,
    SqlWorkflowStore,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
)
from workflow_store.testing import ResumableWorkflowStoreContract, WorkflowStoreContract, a_run


class TestOurStores(ResumableWorkflowStoreContract):
    """Memory, a SQLite file, SQLite in memory and PostgreSQL, through the `store` fixture."""


@pytest.fixture(scope="module")
def roles(postgres_server: str) -> Iterator[Roles]:
    """The roles and the schema of docs/host.md."""
    with roles_on(postgres_server) as roles:
        yield roles


@pytest.mark.slow
class TestWithARoleThatMayNotCreate(ResumableWorkflowStoreContract):
    """PostgreSQL in a schema of its own, with only the rights that docs/host.md grants."""

    @pytest.fixture
    async def store(self, roles: Roles) -> AsyncIterator[WorkflowStore]:
        await empty_tables(roles.owner_url, roles.schema)
        async with SqlWorkflowStore(roles.app_url, schema=roles.schema) as store:
            yield store
            await until(lambda: checked_out(store) == 0)


class StoreOfAThirdParty(WorkflowStore):
    """A store of another package: the seven methods, `open` and `close`."""

    def __init__(self) -> None:
        self._inner = InMemoryWorkflowStore()

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def create_run(self, state: WorkflowExecutionState) -> None:
        await self._inner.create_run(state)

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        return await self._inner.get_run(run_task_id)

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        await self._inner.update_context(run_task_id, context)

    async def delete_run(self, run_task_id: str) -> None:
        await self._inner.delete_run(run_task_id)

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        await self._inner.upsert_step(run_task_id, step)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        return await self._inner.get_step(run_task_id, step_id)

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        return await self._inner.list_steps(run_task_id)


class TestAStoreOfAThirdParty(WorkflowStoreContract):
    """The seven methods are enough to be certified."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[WorkflowStore]:
        async with StoreOfAThirdParty() as store:
            assert not isinstance(store, ResumableWorkflowStore)
            yield store


def test_no_part_of_the_kit_hides_a_test_of_another() -> None:
    """Of two tests with the same name, pytest would run only one."""
    names = Counter(
        name
        for part in ResumableWorkflowStoreContract.__mro__
        for name in vars(part)
        if name.startswith("test_")
    )
    assert [name for name, count in names.items() if count > 1] == []


async def test_tokens_of_a_store_in_memory_grow_across_closing() -> None:
    """A claim from before never matches a run that was created after."""
    store = InMemoryWorkflowStore()
    tokens = []
    for _ in range(2):
        async with store:
            await store.create_run(a_run())
            claim = await store.claim_run("run", owner="me")
            assert claim is not None
            tokens.append(claim.token)
    assert tokens[0] < tokens[1]
