"""Claims of processes that are killed or stopped, and purges that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.processes import Start, check_file, count, line, orphans, output, query
from support.waiting import PATIENCE_S, until
from workflow_store import (
    RunClaim,
    SqlWorkflowStore,
    TaskStatus,
)
from workflow_store.testing import a_run, a_step

pytestmark = pytest.mark.slow

LONG_S = 3_600.0


async def all_of(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)


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
        return sum(
            len(journaled(journal, "committed")) for journal in self._folder.glob("worker-*")
        )

    async def kill_one_and_hire_another(self) -> None:
        """Kill one in the middle of its work."""
        busy = [journal for journal in self.at_work if journaled(journal, "committed")]
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

    def journaled(self, what: str) -> list[list[str]]:
        return [words for path in self._folder.glob("worker-*") for words in journaled(path, what)]


def journaled(journal: Path, what: str) -> list[list[str]]:
    """Return the complete lines of a journal that begin with a word, without the word."""
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
    acknowledged = crew.journaled("committed")
    for name, step_id, token, attempt in acknowledged:
        assert by_attempt[attempt] == (name, step_id, int(token))
    assert len({(name, step_id) for name, step_id, *_ in acknowledged}) == len(acknowledged)
    assert len(by_attempt) == len(names) * len(step_ids)
    # A worker that is killed has journaled all of its commits except one per run at most.
    assert len(by_attempt) - len(acknowledged) <= 5 * len(crew.killed)
    assert len(crew.killed) >= 5
    assert taken_over >= 5
    assert crew.journaled("lost"), "no worker that hung was refused"
    assert await orphans(database_url) == []
    await check_file(database_url)


@pytest.fixture(params=["sqlite", "sqlite-callers-engine", "postgresql"])
def url_and_engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each database, and whose engine a program is to use."""
    name = "postgres_url" if request.param == "postgresql" else "sqlite_url"
    engine = "callers" if request.param.endswith("callers-engine") else "own"
    return request.getfixturevalue(name), engine


async def next_deletion(process: Process) -> None:
    """Wait until a purge is about to execute a statement that deletes, and let it do so."""
    assert await line(process) == "deleting"
    assert process.stdin is not None
    process.stdin.write(b"go on\n")


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
                await next_deletion(process)
            for _ in range(random.randint(0, 3)):  # seen after a commit, killed amid the next
                await next_deletion(process)
            await asyncio.sleep(random.uniform(0, 0.01))  # no condition: any moment will do
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
        *_, purged = (await output(last)).split()
        assert int(purged) == left - len(kept)
        assert {run.run_task_id for run in (await store.list_runs()).runs} == set(kept)
        assert [len(await store.list_steps(name)) for name in kept] == [3, 2]
        assert await count(database_url, "steps") == 5
        assert await count(database_url, "claims") == 2
    await check_file(database_url)


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
