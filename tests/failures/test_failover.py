"""A primary that fails, and its standby that takes over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest

from support.databases import checked_out, on_server
from support.failures import impatient_store, recovers
from support.processes import query
from support.standby import Server, primary_and_standby
from support.waiting import PATIENCE_S, until
from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    StoreUnavailableError,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.testing import a_run, a_step

pytestmark = pytest.mark.slow


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby, which the primary's commits wait for."""
    with primary_and_standby() as (primary, standby):
        asyncio.run(wait_for_standby(primary))
        yield primary, standby


async def wait_for_standby(primary: Server) -> None:
    await on_server(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    await on_server(primary.url, "SELECT pg_reload_conf()")

    async def is_synchronous() -> bool:
        states = await query(primary.url, "SELECT sync_state FROM pg_stat_replication")
        return states == [("sync",)]

    await until(is_synchronous)


def url_of(*servers: Server) -> str:
    hosts = ",".join(server.address for server in servers)
    return f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"


async def test_a_failover_loses_nothing_that_was_acknowledged_and_claims_still_fence(
    pair: tuple[Server, Server],
) -> None:
    """Calls end in success or as unavailable; the same store then goes on with the standby."""
    primary, standby = pair
    url = url_of(primary, standby)
    await migrate.upgrade(url)
    acknowledged: set[tuple[str, int]] = set()
    tokens: list[int] = []
    refusals: list[StoreUnavailableError] = []
    promoted = asyncio.Event()

    async with open_store(url) as store:
        assert isinstance(store, ResumableWorkflowStore)

        async def write(run_task_id: str) -> None:
            await store.create_run(a_run(run_task_id))
            claim = await claimed(store, run_task_id)
            tokens.append(claim.token)
            number, after = 0, 0
            while after < 20:
                try:
                    step = a_step(f"s{number}", result=number)
                    await store.fenced(claim).commit_step(run_task_id, step, number)
                except StoreUnavailableError as error:
                    refusals.append(error)
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.add((run_task_id, number))
                    number += 1
                    after += promoted.is_set()

        async def fail_over() -> None:
            await until(lambda: len(acknowledged) > 100 and len(tokens) == 9)
            await asyncio.to_thread(primary.crash)
            await until(lambda: len(refusals) > 8)
            await asyncio.to_thread(standby.promote)
            promoted.set()

        await store.create_run(a_run("lapsed"))
        lapsed = await store.claim_run("lapsed", owner="before", lease_s=0.01)
        assert lapsed is not None
        tokens.append(lapsed.token)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(fail_over())
            for run in range(8):
                group.create_task(write(f"r{run}"))

        found = {
            (f"r{run}", step.result)
            for run in range(8)
            for step in await store.list_steps(f"r{run}")
        }
        assert found >= acknowledged
        assert any("target_session_attrs" in str(error) for error in refusals)

        (taken,) = await store.claim_abandoned_runs(owner="after")
        assert taken.run_task_id == "lapsed"
        assert taken.token > max(tokens)
        with pytest.raises(ClaimLostError):
            await store.fenced(lapsed).upsert_step("lapsed", a_step())
        await store.fenced(taken).upsert_step("lapsed", a_step())
        assert checked_out(store) == 0


async def test_what_no_standby_has_is_not_acknowledged(pair: tuple[Server, Server]) -> None:
    """A commit that waits for a standby in vain is never reported as done."""
    primary, standby = pair
    url = url_of(primary, standby)
    await migrate.upgrade(url)
    async with open_store(url) as patient:
        await patient.create_run(a_run())
        claim = await claimed(patient, "run")
    async with impatient_store(url, statement_timeout_s=3) as store:
        standby.crash()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "create_run": lambda: store.create_run(a_run("other")),
            "upsert_step": lambda: store.upsert_step("run", a_step()),
            "commit_step": lambda: store.fenced(claim).commit_step("run", a_step("t"), 1),
            "release_claim": lambda: store.release_claim(claim),
            "claim_run": lambda: store.claim_run("run", owner="run"),
            "purge_runs": lambda: store.purge_runs(
                created_before=datetime.now(UTC), only_terminal=False
            ),
        }
        for name, call in calls.items():
            assert await is_refused(call()), f"{name} was acknowledged"
        standby.start()
        await wait_for_standby(primary)
        await recovers(lambda: store.create_run(a_run()))
        assert await recovers(lambda: store.get_run("run")) is not None
        assert checked_out(store) == 0


async def test_with_standbys_alone_a_store_is_unavailable_and_then_opens(
    pair: tuple[Server, Server],
) -> None:
    primary, standby = pair
    url = url_of(standby, primary)  # in whatever order
    await migrate.upgrade(url)
    async with open_store(url) as store:
        await store.create_run(a_run())
    primary.crash()
    with pytest.raises(StoreUnavailableError, match="target_session_attrs"):
        await open_store(url).open()
    standby.promote()
    async with open_store(url) as store:
        assert await store.get_run("run") is not None


async def test_a_host_that_is_silent_keeps_nobody_from_the_next(postgres_server: str) -> None:
    """Like a machine without power: it never answers, not even with a refusal."""
    with primary_and_standby() as (primary, _), silent() as port:
        url = url_of(primary)
        await migrate.upgrade(url)
        url = url.replace("host=", f"host=127.0.0.1:{port},")
        async with asyncio.timeout(PATIENCE_S), open_store(url, connect_timeout_s=10) as store:
            await store.create_run(a_run())
            await asyncio.gather(*(store.get_run("run") for _ in range(20)))


@contextlib.contextmanager
def silent() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


async def is_refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except StoreUnavailableError:
        return True
    return False


async def claimed(store: ResumableWorkflowStore, run_task_id: str) -> RunClaim:
    claim = await store.claim_run(run_task_id, owner=run_task_id, lease_s=3600)
    assert claim is not None
    return claim
