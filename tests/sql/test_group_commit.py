"""Concurrent writes share transactions, each with its own outcome."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from support import ROOT
from support.failures import refusing
from support.waiting import PATIENCE_S
from workflow_store import (
    RunNotFoundError,
    SqlWorkflowStore,
    StoreClosedError,
    StoreUnavailableError,
    WorkflowStore,
    WorkflowStoreError,
    open_store,
)
from workflow_store.sql import group_commit
from workflow_store.sql.group_commit import GroupCommit
from workflow_store.testing import a_run, a_step

PROGRAMS = ROOT / "tests" / "support" / "programs"


class Recorder:
    """Records the batches of a writer, and commits when the test allows it."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[Sequence[Any]]]] = []
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.writer = GroupCommit(
            self.commit,
            fails_alone=lambda e: isinstance(e, KeyError),
            succeeds_once=lambda statement: statement == "once",
        )

    async def commit(
        self, statement: str, rows: list[Sequence[Any]], notes: list[Any]
    ) -> list[bool]:
        self.batches.append((statement, rows))
        await self.may_commit.wait()
        if any(row[0] == "bad" for row in rows):
            raise KeyError(len(rows))
        if any(row[0] == "lost" for row in rows):
            raise ConnectionError
        return [row[0] != "nowhere" for row in rows]

    def begin(self, key: Hashable, value: Any = 0, *, to: str = "step") -> asyncio.Task[bool]:
        return asyncio.ensure_future(self.writer.write(to, key, (key, value), 10))

    async def hold(self) -> asyncio.Task[bool]:
        """Begin a transaction that does not end yet."""
        self.may_commit.clear()
        first = self.begin("first")
        while not self.batches:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        return first


async def test_a_write_alone_goes_out_at_once_and_alone() -> None:
    """Nothing is held back for company."""
    recorder = Recorder()
    assert await recorder.begin("a")
    assert await recorder.begin("b")
    assert [len(rows) for _, rows in recorder.batches] == [1, 1]


async def test_what_arrives_during_a_commit_goes_out_together_in_the_next() -> None:
    """No await ends before the commit of its own row."""
    recorder = Recorder()
    first = await recorder.hold()
    others = [recorder.begin(f"{n}") for n in range(20)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in (first, *others))
    recorder.may_commit.set()
    assert all(await asyncio.gather(first, *others))
    assert [len(rows) for _, rows in recorder.batches] == [1, 20]


async def test_the_later_of_two_writes_to_one_key_is_written_at_the_place_of_the_earlier() -> None:
    """Both callers get a result."""
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(*pair) for pair in (("a", 1), ("b", 2), ("a", 3))]
    recorder.may_commit.set()
    assert await asyncio.gather(*tasks) == [True, True, True]
    assert recorder.batches[1] == ("step", [("a", 3), ("b", 2)])


async def test_of_two_writes_that_succeed_once_the_first_gets_the_result() -> None:
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(key, to="once") for key in ("a", "b", "a")]
    recorder.may_commit.set()
    assert await asyncio.gather(*tasks) == [True, True, False]


async def test_a_row_that_finds_no_place_fails_its_own_caller_only() -> None:
    """The others are written."""
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(key) for key in ("a", "nowhere", "b")]
    recorder.may_commit.set()
    assert await asyncio.gather(*tasks) == [True, False, True]


async def test_a_row_that_fails_the_transaction_fails_its_own_caller_only() -> None:
    """The rows are tried one by one."""
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(key) for key in ("a", "bad", "b")]
    recorder.may_commit.set()
    a, bad, b = await asyncio.gather(*tasks, return_exceptions=True)
    assert [a, b] == [True, True]
    assert isinstance(bad, KeyError)


async def test_a_lost_database_fails_every_caller_with_an_error_of_its_own() -> None:
    """And the next write is tried anew."""
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(key) for key in ("a", "lost", "b")]
    recorder.may_commit.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionError] * 3
    assert len({id(error) for error in errors}) == 3
    assert await recorder.begin("c")


async def test_a_cancelled_caller_leaves_the_others_alone() -> None:
    """A write that was not begun is dropped; one that was begun is committed."""
    recorder = Recorder()
    first = await recorder.hold()
    tasks = [recorder.begin(key) for key in ("a", "b", "c")]
    await asyncio.sleep(0)
    first.cancel()
    tasks[1].cancel()
    await asyncio.wait([first, tasks[1]])
    recorder.may_commit.set()
    assert all(await asyncio.gather(tasks[0], tasks[2]))
    assert [[row[0] for row in rows] for _, rows in recorder.batches] == [["first"], ["a", "c"]]


async def test_a_transaction_is_bounded_in_rows_and_in_bytes() -> None:
    """A row that is too large by itself goes out alone."""
    recorder = Recorder()
    await recorder.hold()
    many = [recorder.begin(f"{n}") for n in range(group_commit.MAX_ROWS + 1)]
    sizes = (group_commit.MAX_BYTES + 1, 1, group_commit.MAX_BYTES - 1, 1)
    large = [
        asyncio.ensure_future(recorder.writer.write("large", n, (n, 0), size))
        for n, size in enumerate(sizes)
    ]
    recorder.may_commit.set()
    await asyncio.gather(*many, *large)
    assert [(name, len(rows)) for name, rows in recorder.batches[1:]] == [
        ("step", group_commit.MAX_ROWS), ("large", 1), ("step", 1), ("large", 2), ("large", 1),
    ]  # fmt: skip


async def test_statements_take_turns() -> None:
    """A flood of one does not keep the other waiting."""
    recorder = Recorder()
    await recorder.hold()
    tasks = [recorder.begin(f"{n}", to=to) for n in range(3) for to in ("step", "context")]
    recorder.may_commit.set()
    await asyncio.gather(*tasks)
    assert [name for name, _ in recorder.batches] == ["step", "step", "context"]


async def test_what_a_caller_has_in_its_context_is_not_there_in_the_shared_transaction() -> None:
    """A request's id or a tenant's name of one caller does not pass to the others' rows."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody's")
    seen: list[str] = []

    async def commit(_: str, rows: list[Sequence[Any]], notes: list[Any]) -> list[Any]:
        seen.append(tenant.get())
        return [*notes]

    group: GroupCommit[str] = GroupCommit(
        commit, fails_alone=lambda _: False, succeeds_once=lambda _: False
    )
    tenant.set("the first caller's")
    assert await group.write("step", "a", ("a",), 1, "note") == "note"
    assert seen == ["nobody's"]


async def test_draining_waits_for_everything_that_was_written() -> None:
    """Also for what is not begun yet."""
    recorder = Recorder()
    await recorder.hold()
    task = recorder.begin("a")
    await asyncio.sleep(0)
    draining = asyncio.ensure_future(recorder.writer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    recorder.may_commit.set()
    await draining
    assert task.done()


def test_the_end_of_the_event_loop_leaves_nobody_waiting() -> None:
    """Whoever still waits is cancelled with it."""

    async def main() -> list[asyncio.Task[bool]]:
        recorder = Recorder()
        first = await recorder.hold()
        tasks = [first, recorder.begin("a")]
        await asyncio.sleep(0)
        (lane,) = (t for t in asyncio.all_tasks() if t.get_name().endswith("group_commit"))
        lane.cancel()
        await asyncio.wait(tasks)
        return tasks

    assert all(task.cancelled() for task in asyncio.run(main()))


# -- on the databases ------------------------------------------------------------------


async def test_a_row_that_the_database_refuses_fails_its_own_caller_only(
    database_url: str,
) -> None:
    """Fifty neighbours in the same transaction are written."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        async with refusing(database_url):
            names = [f"{n}" for n in range(25)] + ["refused"] + [f"{n}" for n in range(25, 50)]
            outcomes = await asyncio.gather(
                *(store.upsert_step("run", a_step(name)) for name in names),
                return_exceptions=True,
            )
        failed = [name for name, o in zip(names, outcomes, strict=True) if o is not None]
        assert failed == ["refused"]
        assert type(outcomes[25]) is WorkflowStoreError
        assert len(await store.list_steps("run")) == 50


async def test_writes_of_all_kinds_made_at_once_settle(database_url: str) -> None:
    """Runs, contexts, steps and deletions, each with its own outcome."""
    async with open_store(database_url) as store:
        await asyncio.gather(*(store.create_run(a_run(f"{n}")) for n in range(40)))
        await asyncio.gather(
            *(store.create_run(a_run(f"{n}", input="again")) for n in range(40)),
            *(store.update_context(f"{n}", {"n": n}) for n in range(20)),
            *(store.upsert_step(f"{n % 20}", a_step(f"{n}")) for n in range(60)),
            *(store.delete_run(f"{n}") for n in range(20, 40)),
            return_exceptions=True,
        )
        await asyncio.gather(*(store.delete_run(f"{n}") for n in range(20, 40)))
        outcomes = await asyncio.gather(
            *(store.update_context(f"{n}", n) for n in range(40)), return_exceptions=True
        )
        assert outcomes[:20] == [None] * 20
        assert {type(outcome) for outcome in outcomes[20:]} == {RunNotFoundError}
        for n in range(20):
            run = await store.get_run(f"{n}")
            assert run is not None
            assert (run.input, run.context) == ("again", n)
            assert {s.step_id for s in await store.list_steps(f"{n}")} == {
                f"{n}", f"{n + 20}", f"{n + 40}",
            }  # fmt: skip


async def test_a_connection_lost_during_a_batch_loses_no_write(postgres_url: str) -> None:
    """Writes that wait for a lock when the server ends the session are written by the next."""
    async with open_store(postgres_url) as store:
        await store.create_run(a_run())
        other = await asyncpg.connect(postgres_url)
        lock = other.transaction()
        await lock.start()
        await other.execute("LOCK TABLE steps IN EXCLUSIVE MODE")
        writes = [
            asyncio.ensure_future(store.upsert_step("run", a_step(f"{n}"))) for n in range(30)
        ]
        blocked = (
            "SELECT pid FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while (pid := await other.fetchval(blocked)) is None:  # noqa: ASYNC110 - in the server
            await asyncio.sleep(0.01)
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        await lock.rollback()
        await other.close()
        await asyncio.gather(*writes)
        assert len(await store.list_steps("run")) == 30


async def test_closing_settles_whatever_waits(database_url: str) -> None:
    """A write is completed, or refused as the store is closed; none waits for ever."""
    store = open_store(database_url)
    await store.open()
    await store.create_run(a_run())
    tasks = [
        asyncio.ensure_future(store.upsert_step("run", a_step(f"{n}")))
        for n in range(group_commit.MAX_WAITING + 500)
    ]
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    written = outcomes.count(None)
    assert written >= group_commit.MAX_WAITING
    assert all(o is None or isinstance(o, StoreClosedError) for o in outcomes)
    async with open_store(database_url) as store:
        assert len(await store.list_steps("run")) == written


def waiting_writes() -> int:
    """Return how many writes wait with their rows, in all stores of the process."""
    return sum(type(thing) is group_commit._Waiting for thing in gc.get_objects())


async def test_more_writes_than_may_wait_are_all_written(database_url: str) -> None:
    """Beyond the bound, calls wait before they make their rows."""
    async with open_store(database_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(a_run())
        gc.collect()  # what other tests of the process left does not count
        left_over = waiting_writes()
        tasks = [
            asyncio.ensure_future(store.upsert_step("run", a_step(f"{n}", result="x" * 100)))
            for n in range(3 * group_commit.MAX_WAITING)
        ]
        most = 0
        while most == 0:
            await asyncio.sleep(0)
            most = waiting_writes() - left_over
        # Not looked at again and again: a loop that never sleeps starves SQLite's thread.
        assert most <= group_commit.MAX_WAITING
        await asyncio.gather(*tasks)
        assert len(await store.list_steps("run")) == len(tasks)


async def test_a_database_that_is_gone_fails_all_that_wait(sqlite_url: str) -> None:
    """With an error of ours, one for each."""
    async with open_store(sqlite_url, busy_timeout_s=0.2) as store:
        await store.create_run(a_run())
        other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *(store.upsert_step("run", a_step(f"{n}")) for n in range(10)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
        other.rollback()
        other.close()
        await store.upsert_step("run", a_step())


@pytest.mark.slow
def test_two_processes_with_opposite_batches_never_deadlock(postgres_url: str) -> None:
    """The same steps and contexts, in opposite orders, at the same time."""
    processes = [
        subprocess.Popen([sys.executable, PROGRAMS / "write_in_order.py", postgres_url, order])
        for order in ("up", "down")
    ]
    try:
        assert [process.wait(PATIENCE_S) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    async def deadlocks() -> Any:
        connection = await asyncpg.connect(postgres_url)
        try:
            return await connection.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
        finally:
            await connection.close()

    assert asyncio.run(deadlocks()) == 0


async def test_reading_many_steps_lets_the_event_loop_go_on(store: WorkflowStore) -> None:
    """Another task gets its turns while two thousand steps are read."""
    await store.create_run(a_run())
    await asyncio.gather(
        *(store.upsert_step("run", a_step(f"{n}", result={"n": [n] * 200})) for n in range(2000))
    )
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    steps = await store.list_steps("run")
    ticking.cancel()
    assert len(steps) == 2000
    assert gc.isenabled()
    assert turns > 3 or not isinstance(store, SqlWorkflowStore)
