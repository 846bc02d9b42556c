"""Attempts of unknown outcome: nothing acknowledged is undone, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

import pytest

from support.databases import checked_out, on_server
from support.failures import fails, run, sessions
from support.network_proxy import Network, network
from support.waiting import PATIENCE_S, until
from workflow_store import (
    SqlWorkflowStore,
    StoreUnavailableError,
    TaskStatus,
    WorkflowStepState,
    open_store,
)

pytestmark = [pytest.mark.slow, pytest.mark.measured]

LIMIT_S = 1.0


def a_step(result: object, status: TaskStatus = TaskStatus.RUNNING) -> WorkflowStepState:
    return WorkflowStepState(step_id="s", status=status, result=result)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlWorkflowStore]:
    """A store with a short timeout, and a connection that is ready to write."""
    async with open_store(postgres_url, statement_timeout_s=LIMIT_S) as store:
        assert isinstance(store, SqlWorkflowStore)
        await until_acknowledged(lambda: store.create_run(run()))
        yield store
        assert checked_out(store) == 0


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[SqlWorkflowStore]:
    """The store of another process."""
    async with open_store(postgres_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        yield store


async def until_acknowledged(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a call, as a caller does after `StoreUnavailableError`."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await call()
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def paused(url: str, store: SqlWorkflowStore) -> AsyncIterator[list[int]]:
    """Stop the server processes of a store's connections while the block runs."""

    async def prepare() -> None:  # a session that gets a new statement only parses it
        await store.create_run(run("prepared"))
        await store.upsert_step("prepared", a_step("prepared"))
        await store.delete_run("prepared")

    await until_acknowledged(prepare)
    pids = await sessions(url)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def ended(url: str, pids: list[int]) -> None:
    async def none() -> bool:
        return set(pids).isdisjoint(await sessions(url))

    await until(none)


# -- a stopped server process ----------------------------------------------------------


async def test_a_write_of_a_paused_session_never_undoes_a_later_one(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    """The session would execute what it has received when it continues."""
    late, later = a_step("late"), a_step("later", TaskStatus.COMPLETED)
    async with paused(postgres_url, store) as pids:
        await fails(store.upsert_step("r", late), StoreUnavailableError, "may or may not")
        with contextlib.suppress(StoreUnavailableError):
            await store.upsert_step("r", later)
    await until_acknowledged(lambda: store.upsert_step("r", later))
    await ended(postgres_url, pids)
    assert await store.get_step("r", "s") == later


async def test_a_deletion_of_a_paused_session_never_deletes_a_run_that_was_created_again(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    async def created_again() -> None:
        await store.create_run(run(context="new"))
        await store.upsert_step("r", a_step("new"))

    async with paused(postgres_url, store) as pids:
        await fails(store.delete_run("r"), StoreUnavailableError)
        with contextlib.suppress(StoreUnavailableError):
            await created_again()
    await until_acknowledged(created_again)
    await ended(postgres_url, pids)
    assert await store.list_steps("r") == [a_step("new")]


async def test_a_read_is_not_overtaken_by_a_write_of_a_paused_session(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    """A caller that reads "not applied" may rely on it."""
    read: list[WorkflowStepState | None] = []

    async def look() -> None:
        read.append(await store.get_step("r", "s"))

    async with paused(postgres_url, store) as pids:
        await fails(store.upsert_step("r", a_step("late")), StoreUnavailableError)
        with contextlib.suppress(StoreUnavailableError):
            await look()
        for across_runs in (store.list_runs, lambda: store.find_waiting_step("w")):
            with contextlib.suppress(StoreUnavailableError):
                await across_runs()
    await until_acknowledged(look)
    await ended(postgres_url, pids)
    await look()
    assert len({str(step) for step in read}) == 1


async def test_a_paused_session_blocks_only_calls_on_its_runs(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    await store.create_run(run("other"))
    async with paused(postgres_url, store):
        await fails(store.upsert_step("r", a_step("late")), StoreUnavailableError)
        message = "An earlier write of run 'r' has not ended"
        blocked = asyncio.create_task(
            fails(store.upsert_step("r", a_step("later")), StoreUnavailableError, message)
        )
        await until_acknowledged(lambda: store.upsert_step("other", a_step("now")))
        assert await store.get_step("other", "s") == a_step("now")
        await blocked


async def test_a_claim_of_a_paused_session_never_voids_a_later_one(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    async with paused(postgres_url, store) as pids:
        await fails(
            store.claim_run("r", owner="me", lease_s=0.01), StoreUnavailableError, "timed out"
        )
    await until_acknowledged(lambda: store.get_run("r"))
    claim = await store.claim_run("r", owner="me", lease_s=3600)
    assert claim is not None
    await ended(postgres_url, pids)
    assert (await store.renew_claim(claim)).token == claim.token


async def test_closing_does_not_wait_for_a_session_that_stays_paused(postgres_url: str) -> None:
    async with open_store(postgres_url, statement_timeout_s=LIMIT_S) as store:
        assert isinstance(store, SqlWorkflowStore)
        await until_acknowledged(lambda: store.create_run(run()))
        async with paused(postgres_url, store):
            await fails(store.upsert_step("r", a_step("late")), StoreUnavailableError)
            async with asyncio.timeout(PATIENCE_S):
                await store.close()


async def test_a_store_that_was_closed_and_opened_again_waits_for_its_paused_session(
    postgres_url: str, store: SqlWorkflowStore
) -> None:
    later = a_step("later", TaskStatus.COMPLETED)
    async with paused(postgres_url, store) as pids:
        await fails(store.upsert_step("r", a_step("late")), StoreUnavailableError)
        await store.close()
        await store.open()
        with contextlib.suppress(StoreUnavailableError):
            await store.upsert_step("r", later)
    await until_acknowledged(lambda: store.upsert_step("r", later))
    await ended(postgres_url, pids)
    assert await store.get_step("r", "s") == later


async def test_a_session_is_waited_for_even_if_the_role_may_not_see_when_it_began(
    postgres_url: str,
) -> None:
    """As after `SET ROLE`, in a role that lacks the rights of the user."""
    name = f"wfs_{uuid.uuid4().hex}"
    await on_server(
        postgres_url,
        f"CREATE ROLE {name};\n\n"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};\n\n"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}",
    )
    later = a_step("later", TaskStatus.COMPLETED)
    url = f"{postgres_url}&role={name}" if "?" in postgres_url else f"{postgres_url}?role={name}"
    try:
        async with open_store(url, statement_timeout_s=LIMIT_S) as store:
            assert isinstance(store, SqlWorkflowStore)
            await until_acknowledged(lambda: store.create_run(run()))
            async with paused(postgres_url, store) as pids:
                await fails(store.upsert_step("r", a_step("late")), StoreUnavailableError)
                with contextlib.suppress(StoreUnavailableError):
                    await store.upsert_step("r", later)
            await until_acknowledged(lambda: store.upsert_step("r", later))
            await ended(postgres_url, pids)
            assert await store.get_step("r", "s") == later
    finally:
        await on_server(postgres_url, f"DROP OWNED BY {name};\n\nDROP ROLE {name}")


# -- a lost answer ---------------------------------------------------------------------


@pytest.fixture
async def cut(postgres_url: str) -> AsyncIterator[tuple[Network, SqlWorkflowStore]]:
    """A store behind a network that loses answers, with a run."""
    async with (
        network(postgres_url) as (between, url),
        open_store(url) as store,
    ):
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(run())
        await store.upsert_step("r", a_step("first"))
        yield between, store


async def lost(
    between: Network, sent: bytes, call: Coroutine[object, object, object]
) -> asyncio.Task[object]:
    """Begin a call that sends these bytes, and return it once the answer to them was lost."""
    between.lose_answer_to(sent)
    task = asyncio.create_task(call)
    await between.answer_lost.wait()
    return task


async def test_a_write_whose_answer_was_lost_is_confirmed_by_what_is_stored(
    cut: tuple[Network, SqlWorkflowStore],
) -> None:
    """No caller sees a failure of a write that can be read back."""
    between, store = cut
    await store.create_run(run("marker 4"))
    writes: list[Callable[[], Awaitable[None]]] = [
        lambda: store.upsert_step("r", a_step("marker 0")),
        lambda: store.update_context("r", "marker 1"),
        lambda: store.commit_step("r", a_step("marker 2"), "context"),
        lambda: store.create_run(run(context="marker 3")),
        lambda: store.delete_run("marker 4"),
    ]
    between.close_lost()
    for number, write in enumerate(writes):
        await store.delete_run("gone")  # the statement is prepared
        between.lose_answer_to(f"marker {number}".encode())
        between.answer_lost.clear()
        async with asyncio.timeout(PATIENCE_S):
            await write()
        assert between.answer_lost.is_set()
    assert await store.get_run("marker 4") is None


async def test_a_lost_answer_never_brings_an_old_value_back(
    cut: tuple[Network, SqlWorkflowStore], other: SqlWorkflowStore
) -> None:
    """Another process has read both values; a repetition would be seen."""
    between, store = cut
    writing = await lost(between, b"old value", store.upsert_step("r", a_step("old value")))
    assert await other.get_step("r", "s") == a_step("old value")
    await other.upsert_step("r", a_step("new value"))
    between.close_lost()
    await fails(writing, StoreUnavailableError, "may or may not")
    assert await other.get_step("r", "s") == a_step("new value")


async def test_a_lost_answer_never_brings_a_deleted_run_back(
    cut: tuple[Network, SqlWorkflowStore], other: SqlWorkflowStore
) -> None:
    between, store = cut
    writing = await lost(between, b"second life", store.create_run(run(context="second life")))
    await other.delete_run("r")
    between.close_lost()
    await fails(writing, StoreUnavailableError)
    assert await other.get_run("r") is None


async def test_a_step_whose_answer_was_lost_is_not_reported_as_without_a_run(
    cut: tuple[Network, SqlWorkflowStore], other: SqlWorkflowStore
) -> None:
    """It was written, and the run deleted afterwards."""
    between, store = cut
    writing = await lost(between, b"short life", store.upsert_step("r", a_step("short life")))
    await other.delete_run("r")
    between.close_lost()
    await fails(writing, StoreUnavailableError)


async def test_a_fenced_deletion_whose_answer_was_lost_does_not_lose_its_claim(
    cut: tuple[Network, SqlWorkflowStore],
) -> None:
    """It deleted the claim itself."""
    between, store = cut
    await store.create_run(run("doomed"))
    claim = await store.claim_run("doomed", owner="me")
    assert claim is not None
    fenced = store.fenced(claim)
    await fenced.delete_run("gone")  # the statement is prepared
    between.lose_answer_to(b"doomed")
    between.close_lost()
    await fails(fenced.delete_run("doomed"), StoreUnavailableError, "may or may not")
    assert between.answer_lost.is_set()
    assert await store.get_run("doomed") is None


async def test_a_fenced_write_whose_answer_was_lost_is_confirmed_only_while_its_claim_holds(
    cut: tuple[Network, SqlWorkflowStore], other: SqlWorkflowStore
) -> None:
    between, store = cut
    for number, takes_over in enumerate([False, True]):
        claim = await store.claim_run("r", owner="me", lease_s=0.01)
        assert claim is not None
        value = a_step(f"fenced {number}")
        between.answer_lost.clear()
        write = store.fenced(claim).upsert_step("r", value)
        writing = await lost(between, f"fenced {number}".encode(), write)
        if takes_over:
            await until(lambda: claimed(other))
            between.close_lost()
            await fails(writing, StoreUnavailableError)
        else:
            between.close_lost()
            await writing
            between._closing.clear()


async def claimed(store: SqlWorkflowStore) -> bool:
    return await store.claim_run("r", owner="other") is not None


async def test_a_commit_of_a_claim_whose_answer_was_lost_is_not_repeated(
    cut: tuple[Network, SqlWorkflowStore], other: SqlWorkflowStore
) -> None:
    between, store = cut
    claiming = await lost(between, b"COMMIT;", store.claim_run("r", owner="me", lease_s=0.01))
    await until(lambda: claimed(other))
    between.close_lost()
    await fails(claiming, StoreUnavailableError, "may or may not")


# -- connections that end --------------------------------------------------------------


async def test_a_server_that_cannot_be_reached_again_is_unavailable(postgres_url: str) -> None:
    """Closed connections are replaced before anything is sent; here that fails."""
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    async with open_store(postgres_url) as store:
        await store.create_run(run())
        await asyncio.gather(*(store.get_run("r") for _ in range(10)))
        await on_server(
            postgres_url.replace(f"/{name}", "/postgres"),
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false;\n\n"
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        try:
            await asyncio.gather(
                *(fails(store.get_run("r"), StoreUnavailableError) for _ in range(10)),
                fails(store.update_context("r", 1), StoreUnavailableError),
                fails(store.claim_run("r", owner="me"), StoreUnavailableError),
            )
        finally:
            await on_server(
                postgres_url.replace(f"/{name}", "/postgres"),
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS true",
            )
        await until_acknowledged(lambda: store.update_context("r", 1))
