"""Claims that several processes want at once, and writes during a takeover."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, closing

import asyncpg
import pytest
from sqlalchemy import make_url

from support.processes import Start, check_file, line, orphans, output, query
from support.waiting import until
from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    SqlWorkflowStore,
)
from workflow_store.testing import a_run, a_step

pytestmark = pytest.mark.slow


LONG_S = 3_600.0
SHORT_S = 0.02


async def all_of(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)


async def lapsed_claims(store: SqlWorkflowStore, names: Iterable[str]) -> int:
    """Claim runs, wait until the leases expire, and return the last token."""
    tokens = []
    for name in names:
        claim = await store.claim_run(name, owner="before", lease_s=SHORT_S)
        assert claim is not None
        tokens.append(claim.token)
    await asyncio.sleep(2 * SHORT_S)
    return max(tokens)


async def deadlocks(url: str) -> int:
    """Return how many deadlocks PostgreSQL detected in this database."""
    if url.startswith("sqlite"):
        return 0
    sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ((found,),) = await query(url, sql)
    return int(found)


# -- taken over while it writes --------------------------------------------------------


TAKE_OVER = (
    "DELETE FROM claims WHERE run_task_id = 'run'",
    "INSERT INTO claims (run_task_id, owner, expires_at) "
    "VALUES ('run', 'other', '2099-01-01 00:00:00.000000')",
)


@asynccontextmanager
async def take_over(url: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Take the run over, as `claim_run` does, and commit at the end of the block.

    Yields a condition: whether a session waits for that commit.
    """
    if url.startswith("sqlite"):

        async def any_moment() -> bool:
            await asyncio.sleep(0.05)  # SQLite does not tell
            return True

        with closing(sqlite3.connect(str(make_url(url).database))) as database:
            for sql in TAKE_OVER:
                database.execute(sql)
            yield any_moment
            database.commit()
        return
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM runs FOR NO KEY UPDATE")
            for sql in TAKE_OVER:
                await connection.execute(sql)
            yield lambda: waits_for_a_lock(connection)
    finally:
        await connection.close()


async def waits_for_a_lock(connection: asyncpg.Connection, *, backends: int = 1) -> bool:
    waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
    return bool(await connection.fetchval(waiting) == backends)


WRITES: dict[str, Callable[[ResumableWorkflowStore], Awaitable[None]]] = {
    "create_run": lambda view: view.create_run(a_run(input="late")),
    "update_context": lambda view: view.update_context("run", "late"),
    "upsert_step": lambda view: view.upsert_step("run", a_step(result="late")),
    "commit_step": lambda view: view.commit_step("run", a_step("late", result="late"), "late"),
    "delete_run": lambda view: view.delete_run("run"),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_that_waits_while_its_run_is_taken_over_is_refused(
    database_url: str, write: str
) -> None:
    """It began while the claim held, and would be written when it does not any more."""
    async with SqlWorkflowStore(database_url) as store:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step())
        claim = await store.claim_run("run", owner="me", lease_s=LONG_S)
        assert claim is not None
        before = await store.load_run("run")
        async with take_over(database_url) as waits:
            late = asyncio.ensure_future(WRITES[write](store.fenced(claim)))
            await until(waits)
        with pytest.raises(ClaimLostError):
            await late
        assert await store.load_run("run") == before
        rows = await query(database_url, "SELECT owner FROM claims")
        assert rows == [("other",)]


@pytest.mark.parametrize("write", ["upsert_step", "commit_step"])
async def test_a_run_whose_lapsed_owner_is_writing_is_not_taken_over_before_that_has_ended(
    postgres_url: str, write: str
) -> None:
    """A write that has passed the fence is finished; the next owner finds all of it."""
    async with SqlWorkflowStore(postgres_url) as store:
        await store.create_run(a_run())
        await store.upsert_step("run", a_step("late"))
        await store.upsert_step("run", a_step())
        claim = await store.claim_run("run", owner="me", lease_s=SHORT_S)
        assert claim is not None
        await asyncio.sleep(2 * SHORT_S)
        connection = await asyncpg.connect(postgres_url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM steps FOR UPDATE")
                writing = asyncio.ensure_future(WRITES[write](store.fenced(claim)))
                await until(lambda: waits_for_a_lock(connection))
                assert await store.claim_abandoned_runs(owner="other") == []
                taking = asyncio.ensure_future(store.claim_run("run", owner="other"))
                await until(lambda: waits_for_a_lock(connection, backends=2))
                assert not writing.done()
                assert not taking.done()
        finally:
            await connection.close()
        await writing
        taken = await taking
        assert taken is not None
        assert taken.token > claim.token
        assert "late" in [step.result for step in await store.list_steps("run")]
        with pytest.raises(ClaimLostError):
            await WRITES[write](store.fenced(claim))


# -- all at once -----------------------------------------------------------------------


async def test_abandoned_runs_that_many_processes_ask_for_at_once_are_given_once_each(
    database_url: str, start: Start
) -> None:
    """Four processes with eight tasks each: no run is given twice, and none is left over."""
    names = [f"run {n}" for n in range(300)]
    async with SqlWorkflowStore(database_url) as store:
        await all_of(store.create_run(a_run(name)) for name in (*names, "held", "free"))
        last = await lapsed_claims(store, names)
        held = await store.claim_run("held", owner="before", lease_s=LONG_S)
        assert held is not None
        processes = [
            await start("take_over_at_once.py", database_url, f"{number}") for number in range(4)
        ]
        assert await asyncio.gather(*map(line, processes)) == ["ready"] * 4
        printed = await asyncio.gather(*(output(process, send=b"go\n") for process in processes))
        given = [text.rpartition(" ") for each in printed for text in each.splitlines()]
        assert sorted(name for name, _, _ in given) == sorted(names)
        tokens = {int(token): name for name, _, token in given}
        assert len(tokens) == len(names)
        assert min(tokens) > last
        rows = await query(database_url, "SELECT token, run_task_id FROM claims")
        assert dict(rows) == {**tokens, held.token: "held"}
        assert await store.claim_abandoned_runs(owner="me") == []


async def test_a_run_that_many_owners_in_many_processes_claim_at_once_is_given_to_one(
    database_url: str, start: Start
) -> None:
    """Whether it was never claimed or its lease expired; to none while another holds it."""
    free, lapsed = [f"free {n}" for n in range(3)], [f"lapsed {n}" for n in range(3)]
    async with SqlWorkflowStore(database_url) as store:
        await all_of(store.create_run(a_run(name)) for name in (*free, *lapsed, "held"))
        last = await lapsed_claims(store, lapsed)
        assert await store.claim_run("held", owner="before", lease_s=LONG_S)
        names = [*free, *lapsed, "held"]
        processes = [
            await start("claim_at_once.py", database_url, f"{number}", *names)
            for number in range(4)
        ]
        assert await asyncio.gather(*map(line, processes)) == ["ready"] * 4
        for name in names:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            given = " ".join(await asyncio.gather(*map(line, processes))).split()
            assert len(given) == (name != "held")
            if given:
                assert int(given[0]) > last
                rows = await query(database_url, "SELECT run_task_id, token FROM claims")
                assert dict(rows)[name] == int(given[0])
        assert await asyncio.gather(*map(output, processes)) == [""] * 4


async def test_writes_claims_deletions_and_purges_at_once_lose_no_step_and_never_deadlock(
    database_url: str, start: Start
) -> None:
    """Three processes with eight tasks each, on eight runs, half of which come and go.

    What was acknowledged is there, what was refused is not, and the fenced writes of a run
    stand in the order of their tokens.
    """
    before = await deadlocks(database_url)
    async with SqlWorkflowStore(database_url) as store:
        processes = [
            await start("fight_over_runs.py", database_url, f"{number}") for number in range(3)
        ]
        printed = await asyncio.gather(*map(output, processes))
        outcomes: Counter[str] = Counter()
        written: Counter[str] = Counter()
        for text in "".join(printed).splitlines():
            outcome, _, place = text.partition(" ")
            outcomes[outcome] += 1
            written[place] += outcome == "written"
        assert min(outcomes[name] for name in ("written", "ClaimLostError")) > 20, outcomes

        owners = 0
        for number in range(4):
            steps = await store.list_steps(f"kept {number}")
            found = {f"kept {number}/{step.step_id}" for step in steps}
            assert found == {place for place in +written if place.startswith(f"kept {number}/")}
            tokens = [step.result for step in steps if step.result is not None]
            assert tokens == sorted(tokens)
            owners += len(set(tokens))
            for step in await store.list_steps(f"gone {number}"):
                assert written[f"gone {number}/{step.step_id}"]
        assert owners > 4
    assert await orphans(database_url) == []
    assert await deadlocks(database_url) == before
    await check_file(database_url)
