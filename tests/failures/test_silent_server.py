"""A server that stops responding without closing the connection: no call hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from support.databases import Target, checked_out
from support.engines import engine_of_a_host
from support.failures import calls, fails, locked, run, sessions, step, terminate
from support.network_proxy import Network, network
from support.waiting import PATIENCE_S, until
from workflow_store import RunClaim, RunNotFoundError, SqlWorkflowStore, StoreUnavailableError
from workflow_store.sql import doctor, migrate
from workflow_store.sql.dialects import POSTGRESQL, options
from workflow_store.sql.dialects.postgresql import dialect, liveness, migration_lock

pytestmark = [pytest.mark.slow, pytest.mark.measured]

LIMIT_S = 3.0
"""A timeout in which everything that gets an answer ends on a busy machine, too."""

A_CLAIM = RunClaim("r", "me", 1, 30.0, datetime.now(UTC))


def all_calls(
    store: SqlWorkflowStore, claim: RunClaim
) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return all calls that use the database."""
    now = datetime.now(UTC)
    return {
        **calls(store),
        "load_run": lambda: store.load_run("r"),
        "commit_step": lambda: store.commit_step("r", step(), {}),
        "list_runs": store.list_runs,
        "find_waiting_step": lambda: store.find_waiting_step("w"),
        "purge_runs": lambda: store.purge_runs(created_before=now),
        "claim_run": lambda: store.claim_run("r", owner="me"),
        "claim_abandoned_runs": lambda: store.claim_abandoned_runs(owner="me"),
        "renew_claim": lambda: store.renew_claim(claim),
        "release_claim": lambda: store.release_claim(claim),
        "fenced": lambda: store.fenced(claim).upsert_step("r", step()),
    }


@pytest.fixture
async def cut(postgres_url: str) -> AsyncIterator[tuple[Network, str]]:
    async with network(postgres_url) as (between, url):
        yield between, url


async def no_call_hangs(between: Network, open_: Callable[[], SqlWorkflowStore]) -> None:
    """Cut the network under each call, each of them on a store of its own."""
    stores = {name: open_() for name in all_calls(open_(), A_CLAIM)}
    try:
        for store in stores.values():  # one by one: all at once, they take too long for LIMIT_S
            await store.open()
        await stores["create_run"].create_run(run())
        claim = await stores["claim_run"].claim_run("r", owner="me")
        assert claim is not None
        for store in stores.values():
            await store.get_run("r")  # so that it has a connection
        between.cut()
        under_way = [
            fails(all_calls(store, claim)[name](), StoreUnavailableError, "timed out")
            for name, store in stores.items()
        ]
        await asyncio.gather(*under_way)
        between.restore()
        await until(lambda: {checked_out(store) for store in stores.values()} == {0})
        for store in stores.values():  # the calls that timed out block no other
            await store.upsert_step("r", step())
            assert await store.list_steps("r") == [step()]
        between.cut()
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(store.close() for store in stores.values()))
        between.restore()


@pytest.mark.parametrize(
    ("transaction_pooler", "left_idle"),
    [
        pytest.param(False, False, id="-"),
        pytest.param(False, True, id="-left-idle"),
        pytest.param(True, False, id="transaction-pooler-"),
        pytest.param(True, True, id="transaction-pooler-left-idle"),
    ],
)
async def test_no_call_waits_for_ever_for_a_server_that_is_cut_off(
    cut: tuple[Network, str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    transaction_pooler: bool,
    left_idle: bool,
) -> None:
    between, url = cut
    if left_idle:
        monkeypatch.setattr(type(POSTGRESQL), "IDLE_S", 0.0)
    await no_call_hangs(
        between,
        lambda: SqlWorkflowStore(
            url,
            statement_timeout_s=LIMIT_S,
            connect_timeout_s=LIMIT_S,
            pool_size=1,
            transaction_pooler=transaction_pooler,
        ),
    )


async def test_no_call_on_the_engine_of_a_host_waits_for_ever(cut: tuple[Network, str]) -> None:
    """The engine sets no timeout."""
    between, url = cut
    engine = create_async_engine(
        url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=20, max_overflow=0
    )
    try:
        await no_call_hangs(between, lambda: SqlWorkflowStore(engine, statement_timeout_s=LIMIT_S))
    finally:
        await engine.dispose()


PING = {
    "pool_pre_ping": True,
    "pool_size": 1,
    "max_overflow": 0,
    "connect_args": {"statement_cache_size": 0},  # so that the text of the ping is sent each time
}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"poolclass": NullPool}, b"\4\xd2\x16/", id="asking for TLS"),
        pytest.param({"poolclass": NullPool}, b"user", id="logging in"),
        pytest.param(PING, b"BEGIN", id="pinging"),
        pytest.param(PING, b"\0;\0", id="inside the ping"),
        pytest.param(PING, b"ROLLBACK", id="after the ping"),
    ],
)
async def test_a_connection_of_a_host_is_not_waited_for_for_ever(
    cut: tuple[Network, str], options: dict[str, Any], words: bytes
) -> None:
    """Neither the host's engine nor its pool sets a timeout, and no connection is leaked."""
    between, url = cut
    async with (
        engine_of_a_host(url, **options) as engine,
        SqlWorkflowStore(engine, statement_timeout_s=LIMIT_S) as store,
    ):
        state = run()
        await store.create_run(state)
        for call in (store.get_run("r"), store.delete_run("r"), store.list_runs()):
            between.cut_at(words)
            async with asyncio.timeout(29):  # less than the default of statement_timeout_s
                await fails(call, StoreUnavailableError, "timed out")
            between.restore()
            assert await store.get_run("r") == state
        assert options is not PING or checked_out(store) == 0


async def test_a_connection_of_a_host_is_not_closed_for_ever(cut: tuple[Network, str]) -> None:
    """A call that was answered succeeds, although the server no longer notices the end."""
    between, url = cut
    async with engine_of_a_host(url, poolclass=NullPool) as engine:
        async with SqlWorkflowStore(engine, statement_timeout_s=LIMIT_S) as store:
            for call in (lambda: store.create_run(run()), store.list_runs):
                between.cut_at(b"X\0\0\0\4")  # the message that ends a session
                async with asyncio.timeout(29):
                    await call()
                between.restore()
        assert await sessions(url) == []


@pytest.mark.parametrize("words", [b"pg_catalog.version", b"workflow_store_alembic_version"])
async def test_opening_on_the_engine_of_a_host_does_not_wait_for_ever(
    cut: tuple[Network, str], words: bytes
) -> None:
    between, url = cut
    async with engine_of_a_host(url) as engine:
        store = SqlWorkflowStore(engine, statement_timeout_s=LIMIT_S)
        between.cut_at(words)
        async with asyncio.timeout(29):
            await fails(store.open(), StoreUnavailableError)
        between.restore()
        async with store:
            await store.create_run(run())


@pytest.mark.parametrize(
    "words", [b"pg_catalog.version", b"workflow_store_alembic_version", b"COMMIT"]
)
async def test_opening_does_not_wait_for_ever(cut: tuple[Network, str], words: bytes) -> None:
    """Whenever the server stops responding after it accepted the connection."""
    between, url = cut
    store = SqlWorkflowStore(url, statement_timeout_s=LIMIT_S, connect_timeout_s=LIMIT_S)
    between.cut_at(words)
    async with asyncio.timeout(29):  # less than the default of statement_timeout_s
        await fails(store.open(), StoreUnavailableError)
    between.restore()
    async with store:
        await store.create_run(run())


async def test_a_transaction_that_failed_does_not_wait_for_ever_to_be_rolled_back(
    cut: tuple[Network, str],
) -> None:
    between, url = cut
    async with SqlWorkflowStore(url, statement_timeout_s=LIMIT_S) as store:
        between.cut_at(b"ROLLBACK")
        await fails(store.claim_run("none", owner="me"), StoreUnavailableError)
        between.restore()
        with pytest.raises(RunNotFoundError):
            await store.claim_run("none", owner="me")
        assert checked_out(store) == 0


async def test_the_revision_is_not_waited_for_for_ever(
    cut: tuple[Network, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    between, url = cut
    monkeypatch.setitem(options._DEFAULTS, "statement_timeout_s", LIMIT_S)
    for look in (migrate.check, migrate.current):
        between.cut_at(b"workflow_store_alembic_version")
        await fails(look(url), StoreUnavailableError)
        between.restore()
        await look(url)


@pytest.fixture
async def empty_cut(empty_postgres_url: str) -> AsyncIterator[tuple[Network, str]]:
    async with network(empty_postgres_url) as (between, url):
        yield between, url


@pytest.fixture(params=["url", "engine"])
async def target(
    request: pytest.FixtureRequest, empty_cut: tuple[Network, str]
) -> AsyncIterator[Target]:
    """The database behind the network, by its URL and as the engine of a host."""
    _, url = empty_cut
    if request.param == "url":
        yield url
        return
    async with engine_of_a_host(url, pool_size=1, max_overflow=0, pool_pre_ping=True) as engine:
        yield engine


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a migration notice silence soon."""
    monkeypatch.setattr(migration_lock, "SILENCE_S", LIMIT_S)
    monkeypatch.setattr(liveness, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(liveness, "LOOK_LIMIT_S", LIMIT_S)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("alone", [False, True], ids=["server", "connection"])
@pytest.mark.parametrize(
    "words",
    [
        b"pg_backend_pid",
        b"pg_try_advisory_lock",
        b"lock_timeout",
        b"CREATE TABLE runs",
        b"COMMIT",
        b"pg_advisory_unlock",
    ],
)
async def test_a_migration_does_not_wait_for_ever(
    empty_cut: tuple[Network, str], target: Target, words: bytes, *, alone: bool
) -> None:
    """Neither for a server that stopped responding, nor for an answer that was lost."""
    between, url = empty_cut
    between.cut_at(words, alone=alone)
    async with asyncio.timeout(60):
        await fails(migrate.upgrade(target), StoreUnavailableError)
    between.restore()
    await terminate(url)
    await migrate.upgrade(target)
    await migrate.check(target)


@pytest.mark.usefixtures("impatient")
async def test_a_migration_that_takes_long_is_not_ended(postgres_url: str) -> None:
    async with (
        engine_of_a_host(postgres_url, pool_size=1, max_overflow=0) as engine,
        engine.connect() as connection,
        POSTGRESQL.migration_lock(connection, None, 1.0) as run_migration,
    ):
        await run_migration(lambda sync: sync.exec_driver_sql("SELECT pg_sleep(3)"))


@pytest.mark.parametrize("transaction_pooler", [False, True], ids=["", "transaction-pooler"])
async def test_a_connection_whose_server_was_only_slow_is_kept(
    postgres_url: str, *, transaction_pooler: bool
) -> None:
    """Statements that timed out have ended in the server too, with their transactions."""
    async with SqlWorkflowStore(
        postgres_url,
        statement_timeout_s=LIMIT_S,
        pool_size=1,
        transaction_pooler=transaction_pooler,
    ) as store:
        await store.create_run(run())
        before = await sessions(postgres_url)
        async with locked(postgres_url):
            for call in (store.upsert_step("r", step()), store.list_runs(), store.get_run("r")):
                await fails(call, StoreUnavailableError)
            assert await sessions(postgres_url, that="state = 'active'") == []
        await store.upsert_step("r", step())
        assert await sessions(postgres_url) == before


async def test_an_examination_may_be_looked_at_slowly(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer may pause between findings for longer than any timeout."""
    monkeypatch.setattr(doctor, "LIMIT_S", LIMIT_S)
    monkeypatch.setattr(dialect, "GRACE_S", 0.5)
    found = []
    async for finding in doctor.examine(postgres_url):
        found.append(finding.check)
        if finding.check in {"clock", "revision"}:
            await asyncio.sleep(LIMIT_S + 0.7)
    assert len(found) > 12


async def test_an_examination_does_not_wait_for_ever(
    cut: tuple[Network, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    between, url = cut
    monkeypatch.setattr(doctor, "LIMIT_S", LIMIT_S)

    async def examine() -> None:
        async for finding in doctor.examine(url):
            if finding.check == "clock":
                between.cut()

    await fails(examine(), StoreUnavailableError)
