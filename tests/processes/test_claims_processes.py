"""Processes that share runs by claims: killed, stopped, and all at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from support.processes import Start, check_file, count, line, orphans, output, query
from support.waiting import PATIENCE_S, until
from workflow_store import (
    ClaimLostError,
    ResumableWorkflowStore,
    RunClaim,
    SqlWorkflowStore,
    TaskStatus,
)
from workflow_store.testing import a_run, a_step

pytestmark = pytest.mark.slow

LONG_S = 3_600.0
SHORT_S = 0.02


async def all_of(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)


async def lapsed_claims(store: SqlWorkflowStore, names: Iterable[str]) -> int:
    """Claim runs with leases that run out; give the last token."""
    tokens = []
    for name in names:
        claim = await store.claim_run(name, owner="before", lease_s=SHORT_S)
        assert claim is not None
        tokens.append(claim.token)
    await asyncio.sleep(2 * SHORT_S)
    return max(tokens)


async def deadlocks(url: str) -> int:
    """How often a PostgreSQL server had to break a circle of waiting transactions here."""
    if url.startswith("sqlite"):
        return 0
    sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ((found,),) = await query(url, sql)
    return int(found)


# -- killed ----------------------------------------------------------------------------


class Crew:
    """Workers that drive runs, each with a journal of what was acknowledged to it."""

    def __init__(self, start: Start, url: str, folder: Path) -> None:
        self._start = start
        self._url = url
        self._folder = folder
        self.at_work: dict[Path, Process] = {}
        self.killed: list[Process] = []

    async def hire(self) -> None:
        name = f"worker-{len(self.killed) + len(self.at_work)}"
        journal = self._folder / name
        journal.touch()
        self.at_work[journal] = await self._start("drive_runs.py", self._url, name, str(journal))

    def committed(self) -> int:
        assert all(process.returncode is None for process in self.at_work.values())
        return sum(len(told(journal, "committed")) for journal in self._folder.glob("worker-*"))

    async def kill_one_and_hire_another(self) -> None:
        """Kill one in the middle of its work."""
        busy = [journal for journal in self.at_work if told(journal, "committed")]
        process = self.at_work.pop(random.choice(busy))
        process.kill()
        self.killed.append(process)
        await self.hire()

    async def dismiss(self) -> None:
        for process in self.at_work.values():
            assert await output(process, send=b"end\n") == ""
        for process in self.killed:
            _, stderr = await process.communicate()
            assert (process.returncode, stderr.decode()) == (-signal.SIGKILL, "")

    def told(self, what: str) -> list[list[str]]:
        return [words for path in self._folder.glob("worker-*") for words in told(path, what)]


def told(journal: Path, what: str) -> list[list[str]]:
    """Give the complete lines of a journal that begin with a word, without that."""
    lines = journal.read_text().splitlines(keepends=True)
    words = [text.rstrip("\n").split("/") for text in lines if text.endswith("\n")]
    return [rest for first, *rest in words if first == what]


async def test_runs_of_workers_that_are_killed_end_complete_with_every_step_committed_once(
    database_url: str, start: Start, tmp_path: Path
) -> None:
    """Four workers share 200 runs; one dies every 200 steps, and others hang past a lease.

    No step that was acknowledged is lost or done again, and no owner writes after the next.
    """
    names, step_ids = [f"run {n}" for n in range(200)], [f"step {n}" for n in range(10)]
    crew = Crew(start, database_url, tmp_path)
    async with SqlWorkflowStore(database_url) as store:
        await all_of(store.create_run(a_run(name, context=0)) for name in names)
        for step_id in step_ids:
            await all_of(store.upsert_step(name, a_step(step_id)) for name in names)
        for _ in range(4):
            await crew.hire()

        async def nothing_left() -> bool:
            await asyncio.sleep(0.05)
            page = await store.list_runs(step_status=TaskStatus.PENDING, limit=1)
            return not page.runs and await count(database_url, "claims") == 0

        async with asyncio.timeout(PATIENCE_S):
            kill_at = 100
            while not await nothing_left():
                # Counted in steps and not in seconds, so that a slow machine gets on, too.
                if (committed := crew.committed()) >= kill_at:
                    await crew.kill_one_and_hire_another()
                    kill_at = committed + random.randint(100, 300)
        await crew.dismiss()

        by_attempt: dict[str, tuple[str, str, int]] = {}
        taken_over = 0
        for name in names:
            snapshot = await store.load_run(name)
            assert snapshot is not None
            assert snapshot.run.context == len(step_ids)
            assert [step.step_id for step in snapshot.steps] == step_ids
            assert {step.status for step in snapshot.steps} == {TaskStatus.COMPLETED}
            tokens = [step.result["token"] for step in snapshot.steps]
            assert tokens == sorted(tokens)
            taken_over += len(set(tokens)) > 1
            for step in snapshot.steps:
                by_attempt[step.result["attempt"]] = (name, step.step_id, step.result["token"])
    acknowledged = crew.told("committed")
    for name, step_id, token, attempt in acknowledged:
        assert by_attempt[attempt] == (name, step_id, int(token))
    assert len({(name, step_id) for name, step_id, *_ in acknowledged}) == len(acknowledged)
    assert len(by_attempt) == len(names) * len(step_ids)
    # Of what a worker had committed when it was killed, at most one per run was not told.
    assert len(by_attempt) - len(acknowledged) <= 5 * len(crew.killed)
    assert len(crew.killed) >= 5
    assert taken_over >= 5
    assert crew.told("lost"), "nobody that hung was refused"
    assert await orphans(database_url) == []
    await check_file(database_url)


@pytest.fixture(params=["sqlite", "sqlite-callers-engine", "postgresql"])
def url_and_engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each database, and whose engine a program is to use."""
    name = "postgres_url" if request.param == "postgresql" else "sqlite_url"
    engine = "callers" if request.param.endswith("callers-engine") else "own"
    return request.getfixturevalue(name), engine


async def test_a_purge_that_is_killed_leaves_nothing_half_deleted_and_the_next_one_goes_on(
    url_and_engine: tuple[str, str], start: Start
) -> None:
    """SIGKILL at some transaction out of many, again and again; then to the end.

    Over an engine of a caller's, SQLite does not enforce foreign keys: nothing but the
    purge's own transaction keeps steps and claims with their runs.
    """
    database_url, engine = url_and_engine
    cut = datetime(2026, 1, 1, tzinfo=UTC)
    old, kept = [f"old {n}" for n in range(300)], ["going on", "young"]
    arguments = (database_url, engine, cut.isoformat())
    async with SqlWorkflowStore(database_url) as store:
        age = {"young": cut}
        await all_of(
            store.create_run(a_run(name, created_at=age.get(name, cut.replace(year=2025))))
            for name in (*old, *kept)
        )
        for step_id in ("first", "second"):
            step = a_step(step_id, status=TaskStatus.COMPLETED)
            await all_of(store.upsert_step(name, step) for name in (*old, *kept))
        await store.upsert_step("going on", a_step("third", status=TaskStatus.RUNNING))
        await all_of(store.claim_run(name, owner="me") for name in (*old[::3], *kept))

        for _ in range(5):
            before = await count(database_url, "runs")
            process = await start("purge.py", *arguments, "2")
            at_most = before - random.randint(1, 16)
            while await count(database_url, "runs") > at_most:
                assert process.returncode is None
                await asyncio.sleep(0.002)
            await asyncio.sleep(random.uniform(0, 0.1))  # seen after a commit, killed amid the next
            process.kill()
            await process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert len(kept) < await count(database_url, "runs") < before
            assert await orphans(database_url) == []
            rows = await query(database_url, "SELECT run_task_id, count(*) FROM steps GROUP BY 1")
            assert {number for name, number in rows if name not in kept} == {2}
            assert len(rows) == await count(database_url, "runs")

        left = await count(database_url, "runs")
        last = await start("purge.py", *arguments, "100")
        assert int(await output(last)) == left - len(kept)
        assert {run.run_task_id for run in (await store.list_runs()).runs} == set(kept)
        assert [len(await store.list_steps(name)) for name in kept] == [3, 2]
        assert await count(database_url, "steps") == 5
        assert await count(database_url, "claims") == 2
    await check_file(database_url)


# -- stopped ---------------------------------------------------------------------------


async def is_stopped(process: Process) -> bool:
    stat = await asyncio.to_thread(Path(f"/proc/{process.pid}/stat").read_text)
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_a_process_that_goes_on_after_its_run_was_taken_over_writes_nothing_any_more(
    database_url: str, start: Start
) -> None:
    """SIGSTOP past the lease, then SIGCONT: each write is refused, and so is the renewal."""
    async with SqlWorkflowStore(database_url) as store:
        await store.create_run(a_run())
        process = await start("stop_with_a_claim.py", database_url)
        token = int(await line(process))
        await until(lambda: is_stopped(process))
        claims: list[RunClaim] = []

        async def taken_over() -> bool:
            claims.extend(await store.claim_abandoned_runs(owner="me", lease_s=LONG_S))
            return bool(claims)

        await until(taken_over)
        (claim,) = claims
        assert claim.token > token
        await store.fenced(claim).commit_step("run", a_step("second"), "mine")
        before = await store.load_run("run")
        assert before is not None
        assert before.run.context == "mine"
        assert [step.result for step in before.steps] == ["stopped", None]

        os.kill(process.pid, signal.SIGCONT)
        outcomes = dict(text.split(": ") for text in (await output(process)).splitlines())
        assert len(outcomes) == 7
        assert set(outcomes.values()) == {f"lost {token}"}
        assert await store.load_run("run") == before
        assert await store.get_run("other") is None
        await store.renew_claim(claim)
        await store.fenced(claim).update_context("run", "still mine")


# -- taken over while it writes --------------------------------------------------------


TAKE_OVER = (
    "DELETE FROM claims WHERE run_task_id = 'run'",
    "INSERT INTO claims (run_task_id, owner, expires_at) "
    "VALUES ('run', 'other', '2099-01-01 00:00:00.000000')",
)


@asynccontextmanager
async def take_over(url: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Take the run over, as `claim_run` does; it is committed with the block.

    Gives what tells whether a session waits for that.
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
    """A write that has found its claim is finished; whoever comes next finds all of it."""
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
    """Whether it was never claimed or its lease ran out; and to nobody while one holds it."""
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
