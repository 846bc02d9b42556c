"""The store behind pgbouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.commands import process
from support.databases import checked_out
from support.failures import sessions
from support.pgbouncer import SERVER_CONNECTIONS, Pgbouncer, pgbouncer
from support.processes import count
from support.samples import filled, lines_of, newest_first, several
from support.waiting import PATIENCE_S, until
from workflow_store import (
    ResumableWorkflowStore,
    SchemaMismatchError,
    StoreUnavailableError,
    WorkflowStore,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict, examine
from workflow_store.sql.models import REVISION
from workflow_store.testing import ResumableWorkflowStoreContract, a_run, a_step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pooler(postgres_server: str) -> Iterator[Pgbouncer]:
    with pgbouncer(postgres_server) as pooler:
        yield pooler


@pytest.fixture
def pooled_url(pooler: Pgbouncer, postgres_url: str) -> str:
    """A database with our tables, empty, by way of the pooler."""
    return pooler.url(postgres_url)


class TestBehindAPooler(ResumableWorkflowStoreContract):
    """The whole contract, through a pooler that has fewer connections than the store."""

    @pytest.fixture
    async def store(self, pooled_url: str) -> AsyncIterator[WorkflowStore]:
        async with open_store(pooled_url, transaction_pooler=True) as store:
            yield store
            assert checked_out(store) == 0


@pytest.fixture
def bare_pooled_url(pooler: Pgbouncer, empty_postgres_url: str) -> str:
    """A database with nothing in it, by way of the pooler."""
    return pooler.url(empty_postgres_url)


async def test_many_stores_share_few_connections_to_the_server(
    pooled_url: str, postgres_url: str
) -> None:
    """Ten stores, each with ten connections to the pooler, on two of the server."""

    async def work(number: int) -> None:
        async with open_store(pooled_url, transaction_pooler=True) as store:
            await asyncio.gather(*(drive(store, f"{number}.{run}") for run in range(10)))

    async def drive(store: ResumableWorkflowStore, run_task_id: str) -> None:
        await store.create_run(a_run(run_task_id))
        claim = await store.claim_run(run_task_id, owner=run_task_id)
        assert claim is not None
        mine = store.fenced(claim)
        for step in range(5):
            await mine.commit_step(run_task_id, a_step(f"s{step}", result=run_task_id), step)
        snapshot = await store.load_run(run_task_id)
        assert snapshot is not None
        assert snapshot.run.context == 4
        assert [step.result for step in snapshot.steps] == [run_task_id] * 5
        await store.release_claim(claim)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(work(number))
        most = 0

        async def all_are_used() -> bool:
            nonlocal most
            most = max(most, len(await sessions(postgres_url)))
            return most >= SERVER_CONNECTIONS and await count(postgres_url, "steps") > 250

        await until(all_are_used)
        assert most == SERVER_CONNECTIONS
    assert await count(postgres_url, "steps") == 500


async def test_a_restart_of_the_pooler_loses_nothing_that_was_acknowledged(
    pooler: Pgbouncer, pooled_url: str
) -> None:
    """Calls in progress are retried, or fail as unavailable; then the store works again."""
    acknowledged: set[tuple[str, int]] = set()
    refused = 0
    restarted = asyncio.Event()

    async with open_store(pooled_url, transaction_pooler=True) as store:

        async def write(run_task_id: str) -> None:
            nonlocal refused
            await store.create_run(a_run(run_task_id))
            number, after = 0, 0
            while after < 20:
                try:
                    step = a_step(f"s{number}", result=number)
                    await store.commit_step(run_task_id, step, number)
                except StoreUnavailableError:
                    refused += 1
                else:
                    acknowledged.add((run_task_id, number))
                    number += 1
                    after += restarted.is_set()

        async def writing() -> bool:
            return len(acknowledged) > 100

        async def telling() -> bool:
            return refused > 0

        async def restart() -> None:
            await until(writing)
            pooler.kill()
            await until(telling)  # it stays away for longer than calls are tried again
            pooler.start()
            restarted.set()

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(restart())
            for run in range(8):
                group.create_task(write(f"r{run}"))

        found = {
            (f"r{run}", step.result)
            for run in range(8)
            for step in await store.list_steps(f"r{run}")
        }
        assert found >= acknowledged
        assert refused >= 1
        assert checked_out(store) == 0


async def test_a_short_restart_of_the_pooler_is_not_seen(
    pooler: Pgbouncer, pooled_url: str
) -> None:
    async with open_store(pooled_url, transaction_pooler=True) as store:
        await store.create_run(a_run())
        writes = [store.upsert_step("run", a_step(f"s{number}")) for number in range(50)]
        under_way = asyncio.gather(*writes, *(store.load_run("run") for _ in range(10)))
        await asyncio.sleep(0)
        pooler.kill()
        pooler.start()
        await under_way
        assert len(await store.list_steps("run")) == 50


async def test_without_the_option_the_error_names_it(pooled_url: str) -> None:
    """Prepared statements of one store meet those of the other in the server's sessions."""

    async def use() -> None:
        async with open_store(pooled_url) as store:
            await store.create_run(a_run())
            for _ in range(20):
                await asyncio.gather(*(store.get_run("run") for _ in range(10)))

    async with asyncio.timeout(PATIENCE_S):
        ended = await asyncio.gather(*(use() for _ in range(4)), return_exceptions=True)
    errors = [error for error in ended if error is not None]
    assert errors
    for error in errors:
        assert isinstance(error, StoreUnavailableError)
        assert "transaction_pooler=True" in str(error)


async def test_the_revision_is_checked_through_the_pooler(
    pooled_url: str, bare_pooled_url: str
) -> None:
    assert await migrate.current(pooled_url) == REVISION
    await migrate.check(pooled_url)
    assert await migrate.current(bare_pooled_url) is None
    with pytest.raises(SchemaMismatchError):
        await open_store(bare_pooled_url, transaction_pooler=True).open()


async def test_a_migration_through_the_pooler_is_refused(
    pooled_url: str, bare_pooled_url: str, empty_postgres_url: str
) -> None:
    """Its lock would stay in a session that is lent to others, and could not be given back."""
    for attempt in (
        migrate.upgrade(bare_pooled_url),
        open_store(bare_pooled_url, migrate=True, transaction_pooler=True).open(),
        migrate.downgrade(pooled_url, "base"),
    ):
        with pytest.raises(StoreUnavailableError, match="direct connection to the server"):
            await attempt
    assert await migrate.current(empty_postgres_url) is None
    assert await migrate.current(pooled_url) == REVISION
    await migrate.upgrade(empty_postgres_url)
    async with open_store(bare_pooled_url, migrate=True, transaction_pooler=True) as store:
        await store.create_run(a_run())  # it is at the newest revision: there was nothing to do


async def test_a_migration_is_refused_while_others_use_the_pooler_too(
    pooled_url: str, bare_pooled_url: str
) -> None:
    """Which of the server's sessions comes next is anybody's guess then."""
    async with open_store(pooled_url, transaction_pooler=True) as store:
        await store.create_run(a_run())
        ended = asyncio.Event()

        async def disturb() -> None:
            while not ended.is_set():
                await store.get_run("run")

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(disturb())
            for _ in range(10):
                with pytest.raises(StoreUnavailableError, match="direct connection to the server"):
                    await migrate.downgrade(pooled_url, "base")
            ended.set()


async def test_a_pooler_in_session_mode_is_migrated_through(
    postgres_server: str, empty_postgres_url: str
) -> None:
    """It keeps a session, and the lock in it, for as long as the connection is open."""
    with pgbouncer(postgres_server, pool_mode="session") as pooler:
        url = pooler.url(empty_postgres_url)
        await asyncio.gather(*(migrate.upgrade(url) for _ in range(3)))
        async with open_store(url) as store:
            await store.create_run(a_run())


def test_a_copy_goes_through_the_pooler_there_and_back(pooled_url: str, tmp_path: Path) -> None:
    """Nobody has to say that there is one."""
    source = filled(f"sqlite:///{tmp_path}/source.db", *several(100))
    back = f"sqlite:///{tmp_path}/back.db"
    for one, other in ((source, pooled_url), (pooled_url, back)):
        done = process("copy", one, other)
        assert (done.code, done.err.splitlines()[-1]) == (0, "The two stores match.")
        assert process("copy", one, other, "--verify").code == 0
    assert lines_of(back) == lines_of(source) == newest_first(*several(100))


@pytest.mark.parametrize("option", [True, False])
async def test_doctor_tells_of_the_pooler(pooled_url: str, option: bool) -> None:
    findings = {
        found.check: found async for found in examine(pooled_url, transaction_pooler=option)
    }
    assert "transaction mode" in findings["pooler"].found
    assert findings["pooler"].verdict is (Verdict.GOOD if option else Verdict.WARNING)
    assert ("transaction_pooler=True" in findings["pooler"].advice) is not option
