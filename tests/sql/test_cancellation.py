"""Calls that are cancelled: nothing is half-written, nothing leaks, the store stays usable."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from support.cancellation import cancelled, settled, some_delay
from support.databases import checked_out
from support.waiting import PATIENCE_S, threads_ended, until
from workflow_store import (
    ClaimLostError,
    InMemoryWorkflowStore,
    ResumableWorkflowStore,
    RunClaim,
    RunNotFoundError,
    SqlWorkflowStore,
    StoreClosedError,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    open_store,
)

CREATED_AT = "2026-01-01T00:00:00Z"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def run(run_task_id: str, mark: int = 0) -> WorkflowExecutionState:
    """Give a run that carries a mark in every field, to see whether it is whole."""
    return WorkflowExecutionState.model_validate(
        {
            "run_task_id": run_task_id,
            "agent_id": f"agent-{mark}",
            "thread_id": f"thread-{mark}",
            "user_id": f"user-{mark}",
            "workspace_id": f"workspace-{mark}",
            "entry_point": f"entry-{mark}",
            "definition": {"mark": mark, "text": "d" * 2000},
            "input": {"mark": mark, "text": "i" * 2000},
            "context": {"mark": mark, "text": "c" * 2000},
            "created_at": CREATED_AT,
            "updated_at": CREATED_AT,
        }
    )


def step(step_id: str, mark: int = 0) -> WorkflowStepState:
    return WorkflowStepState(
        step_id=step_id,
        result={"mark": mark, "text": "r" * 2000},
        error=f"error-{mark}",
        wait_task_id=f"wait-{mark}",
    )


def check_run(found: WorkflowExecutionState | None) -> int | None:
    """Make sure that a run is whole, and give the mark of its `create_run`."""
    if found is None:
        return None
    mark = int(found.agent_id.removeprefix("agent-"))
    assert found.context == {"mark": found.context["mark"], "text": "c" * 2000}
    expected = run(found.run_task_id, mark).model_copy(
        update={"context": found.context, "updated_at": found.updated_at}
    )
    assert found == expected
    return mark


def check_step(found: WorkflowStepState | None) -> int | None:
    if found is None:
        return None
    mark = int(found.result["mark"])
    assert found == step(found.step_id, mark)
    return mark


@contextlib.asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Let no write through: another connection holds the lock that it needs."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(str(make_url(url).database), isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            database.rollback()
            database.close()
    else:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE runs, steps IN EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()


async def sessions(url: str) -> list[tuple[int, str]]:
    """The sessions of other clients on this PostgreSQL database, and what they do."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
    return [(row["pid"], row["state"]) for row in rows]


async def no_sessions(url: str) -> None:
    """Wait until the server has seen every other client leave."""

    async def none() -> bool:
        return not await sessions(url)

    await until(none)


# -- single calls ----------------------------------------------------------------------


def a_write(store: ResumableWorkflowStore, name: str, mark: int) -> Awaitable[None]:
    match name:
        case "create_run":
            return store.create_run(run("r", mark))
        case "update_context":
            return store.update_context("r", {"mark": mark, "text": "c" * 2000})
        case "upsert_step":
            return store.upsert_step("r", step("s", mark))
        case "commit_step":
            return store.commit_step("r", step("s", mark), {"mark": mark, "text": "c" * 2000})
        case _:
            return store.delete_run("r")


def a_read(store: ResumableWorkflowStore, name: str) -> Awaitable[object]:
    match name:
        case "get_run":
            return store.get_run("r")
        case "get_step":
            return store.get_step("r", "s")
        case "list_steps":
            return store.list_steps("r")
        case "load_run":
            return store.load_run("r")
        case "find_waiting_step":
            return store.find_waiting_step("wait-7")
        case _:
            return store.list_runs(user_id="user-7", step_status=TaskStatus.PENDING)


READS = ("get_run", "get_step", "list_steps", "load_run", "find_waiting_step", "list_runs")
WRITES = ("create_run", "update_context", "upsert_step", "commit_step", "delete_run")


async def test_cancelled_calls_leave_the_store_usable_and_each_write_whole_or_undone(
    store: ResumableWorkflowStore,
) -> None:
    """200 cancellations, of any method at any moment, one after the other."""
    for mark in range(1, 201):
        await store.create_run(run("r", -mark))
        await store.upsert_step("r", step("s", -mark))
        name = random.choice(READS + WRITES)
        if name in READS:
            await cancelled(a_read(store, name), some_delay())
            ended = False
        else:
            ended = await cancelled(a_write(store, name, mark), some_delay())
        await settled(store)

        found = await store.get_run("r")
        created = check_run(found)
        context = None if found is None else found.context["mark"]
        upserted = check_step(await store.get_step("r", "s"))
        before, after = (-mark, -mark, -mark), {
            "create_run": (mark, mark, -mark),
            "update_context": (-mark, mark, -mark),
            "upsert_step": (-mark, -mark, mark),
            "commit_step": (-mark, mark, mark),
            "delete_run": (None, None, None),
        }.get(name)  # fmt: skip
        assert (created, context, upserted) in ([after] if ended else [before, after])
        assert checked_out(store) == 0


async def test_calls_cancelled_at_once_leave_whole_rows_and_no_connection_in_use(
    store: ResumableWorkflowStore,
) -> None:
    """Ten batches of twenty calls that compete for the connections."""
    await store.create_run(run("kept", 7))
    await store.upsert_step("kept", step("s", 7))
    for batch in range(10):
        calls = [
            cancelled(
                a_write(store, random.choice(WRITES[:-1]), batch * 20 + number)
                if random.random() < 0.7
                else a_read(store, random.choice(READS)),
                some_delay(),
            )
            for number in range(20)
        ]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert outcome in (True, False) or isinstance(outcome, LookupError)
        await settled(store)
        assert checked_out(store) == 0
        check_run(await store.get_run("r"))
        check_step(await store.get_step("r", "s"))
        assert check_run(await store.get_run("kept")) == 7
        assert check_step(await store.get_step("kept", "s")) == 7


async def test_cancelled_calls_let_the_server_see_no_more_connections(postgres_url: str) -> None:
    """The pool keeps the very connections that it had, none of them inside a transaction."""
    async with SqlWorkflowStore(postgres_url, pool_size=4) as store:
        await store.create_run(run("r"))
        await asyncio.gather(*(store.get_run("r") for _ in range(40)))
        before = {pid for pid, _ in await sessions(postgres_url)}
        assert 1 <= len(before) <= 4
        for _ in range(10):
            claims = [store.claim_run("r", owner="me") for _ in range(3)]
            calls = [
                cancelled(call, some_delay())
                for call in (
                    *(a_write(store, random.choice(WRITES[:-1]), number) for number in range(20)),
                    *claims,
                    *(store.claim_abandoned_runs(owner="me") for _ in range(3)),
                    store.list_runs(),
                    store.purge_runs(created_before=LONG_AGO),
                )
            ]
            await asyncio.gather(*calls)
            await settled(store)
        after = await sessions(postgres_url)
        assert before <= {pid for pid, _ in after}
        assert len(after) <= 4
        assert {state for _, state in after} == {"idle"}
    await no_sessions(postgres_url)


async def test_cancelling_while_the_database_is_locked_ends_the_calls_before_the_lock(
    database_url: str,
) -> None:
    """A cancelled caller does not wait for the lock, also where no connection is free."""
    async with open_store(database_url, pool_size=2) as store:
        await store.create_run(run("r"))
        async with locked(database_url):
            waiting: list[Coroutine[Any, Any, object]] = [
                *(store.upsert_step("r", step(f"s{number}")) for number in range(6)),
                store.claim_run("r", owner="me"),
                store.claim_abandoned_runs(owner="me"),
                store.purge_runs(created_before=LONG_AGO),
            ]
            calls = [asyncio.create_task(call) for call in waiting]
            await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()
            async with asyncio.timeout(PATIENCE_S):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 9
        await settled(store)
        await store.upsert_step("r", step("last", 9))
        found = await store.list_steps("r")
        assert [check_step(each) for each in found] == [0] * (len(found) - 1) + [9]


async def test_a_timeout_around_a_call_is_the_callers_own_timeout_error(
    database_url: str,
) -> None:
    """It is not taken for a failure of the database, and the next call works."""
    async with open_store(database_url) as store:
        await store.create_run(run("r"))
        async with locked(database_url):
            for _ in range(3):
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.02):
                        await store.upsert_step("r", step("s", 1))
                assert type(caught.value) is TimeoutError
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(store.update_context("r", {}), 0.02)
        await store.upsert_step("r", step("s", 2))
        await settled(store)
        assert check_step(await store.get_step("r", "s")) in {1, 2}
        assert checked_out(store) == 0


async def test_a_cancelled_write_never_happens_after_the_next_write(store: WorkflowStore) -> None:
    """What was begun may still be completed, but what is written afterwards stays."""
    for mark in range(1, 120, 2):
        await store.create_run(run("r", mark))
        await cancelled(store.upsert_step("r", step("s", mark)), some_delay())
        await store.upsert_step("r", step("s", mark + 1))
        await cancelled(store.update_context("r", run("r", mark).context), some_delay())
        await store.update_context("r", run("r", mark + 1).context)
        await cancelled(store.delete_run("gone"), some_delay())
        await store.create_run(run("gone", mark))
        await settled(store)
        assert check_step(await store.get_step("r", "s")) == mark + 1
        found = await store.get_run("r")
        assert found is not None
        assert found.context["mark"] == mark + 1
        assert check_run(await store.get_run("gone")) == mark

        await cancelled(store.upsert_step("r", step("t", mark)), some_delay())
        await cancelled(store.create_run(run("r", mark)), some_delay())
        await store.delete_run("r")
        await settled(store)
        assert await store.get_run("r") is None
        assert await store.list_steps("r") == []


# -- claims and purges -----------------------------------------------------------------


async def holds(store: ResumableWorkflowStore, claim: RunClaim) -> bool:
    try:
        await store.renew_claim(claim)
    except ClaimLostError:
        return False
    return True


async def a_claim(store: ResumableWorkflowStore, lease_s: float = 3600) -> RunClaim:
    claim = await store.claim_run("r", owner="me", lease_s=lease_s)
    assert claim is not None
    return claim


async def test_a_cancelled_claim_renewal_or_release_is_made_whole_or_not_at_all(
    store: ResumableWorkflowStore,
) -> None:
    """The tokens go on growing, and nobody but the owner comes in between."""
    await store.create_run(run("r"))
    token = 0
    for number in range(120):
        claim = await a_claim(store)
        assert claim.token > token
        match ("claim_run", "renew_claim", "release_claim")[number % 3]:
            case "claim_run":
                ended = await cancelled(store.claim_run("r", owner="me"), some_delay())
                expected = {False} if ended else {False, True}
            case "renew_claim":
                await cancelled(store.renew_claim(claim), some_delay())
                expected = {True}
            case _:
                ended = await cancelled(store.release_claim(claim), some_delay())
                expected = {False} if ended else {False, True}
        await settled(store)
        assert checked_out(store) == 0
        held = await holds(store, claim)
        assert held in expected
        other = await store.claim_run("r", owner="other", lease_s=0.000_001)
        assert other is None or not held
        token = claim.token if other is None else other.token


async def test_a_cancelled_take_over_has_all_of_the_runs_or_none(
    store: ResumableWorkflowStore,
) -> None:
    """One transaction takes over all of them, and goes on to its end in the background."""
    names = [f"r{number}" for number in range(4)]
    for name in names:
        await store.create_run(run(name))
    for _ in range(40):
        old = [await store.claim_run(name, owner="me", lease_s=0.001) for name in names]
        await asyncio.sleep(0.02)
        ended = await cancelled(
            store.claim_abandoned_runs(owner="other", lease_s=3600), some_delay()
        )
        await settled(store)
        assert checked_out(store) == 0
        kept = {await holds(store, claim._replace(lease_s=3600)) for claim in old if claim}
        assert kept == {False} if ended else kept in ({False}, {True})
        for name in names:
            await store.delete_run(name)
            await store.create_run(run(name))


async def test_a_cancelled_fenced_write_is_whole_or_undone_and_never_after_a_take_over(
    store: ResumableWorkflowStore,
) -> None:
    """What goes on in the background is as much under the fence as what is awaited."""
    for mark in range(1, 101):
        await store.create_run(run("r", -mark))
        await store.upsert_step("r", step("s", -mark))
        claim = await a_claim(store)
        view = store.fenced(claim)
        writes = ("create_run", "update_context", "upsert_step", "commit_step")
        await cancelled(a_write(view, random.choice(writes), mark), some_delay())
        await a_claim(store)
        taken_over = await store.load_run("r")
        await cancelled(a_write(view, random.choice(WRITES), 0), some_delay(), lost=True)
        await settled(store)
        assert checked_out(store) == 0
        assert await store.load_run("r") == taken_over
        assert taken_over is not None
        assert check_run(taken_over.run) in {-mark, mark}
        assert [check_step(each) in {-mark, mark} for each in taken_over.steps] == [True]


async def test_a_cancelled_purge_stops_and_leaves_whole_runs(
    store: ResumableWorkflowStore,
) -> None:
    """No further transaction begins, and a second purge goes on with the rest."""
    for name in ("r", "kept"):
        await store.create_run(run(name))
    left = 0
    for _ in range(12):
        names = [f"r{number}" for number in range(12)]
        await asyncio.gather(*(store.create_run(run(name)) for name in names))
        for step_id in ("a", "b"):
            ended = step(step_id).model_copy(update={"status": TaskStatus.COMPLETED})
            await asyncio.gather(*(store.upsert_step(name, ended) for name in names))
        await store.upsert_step("kept", step("s"))
        purge = store.purge_runs(created_before=datetime.now(UTC), batch_size=2)
        await cancelled(purge, random.choice([some_delay(), random.uniform(0, 0.1)]))
        await settled(store)
        assert checked_out(store) == 0
        found = await store.list_runs(limit=1000)
        await asyncio.sleep(0.02)  # longer than the pause between two transactions
        assert await store.list_runs(limit=1000) == found
        for summary in found.runs:
            if summary.run_task_id not in {"r", "kept"}:
                assert summary.step_counts == {TaskStatus.COMPLETED: 2}
                left += 1
        purged = await store.purge_runs(created_before=datetime.now(UTC))
        assert purged == sum(summary.run_task_id != "kept" for summary in found.runs)
        for name in names:
            assert await store.list_steps(name) == []
        assert len(await store.list_steps("kept")) == 1
    assert left or isinstance(store, InMemoryWorkflowStore)  # which purges in one go


async def test_calls_of_all_kinds_cancelled_at_once_leave_no_connection_in_use(
    store: ResumableWorkflowStore,
) -> None:
    """Transactions of several statements among single ones, all competing for connections."""
    for _ in range(10):
        await store.create_run(run("r"))
        await store.upsert_step("r", step("s"))
        claim = await a_claim(store)
        view = store.fenced(claim)
        calls: list[Awaitable[object]] = [
            call
            for number in range(4)
            for call in (
                a_read(view, random.choice(READS)),
                a_write(view, random.choice(WRITES[:-1]), number),
                a_write(store, random.choice(WRITES[:-1]), number),
                store.claim_run("r", owner=f"{number}"),
                store.claim_abandoned_runs(owner="me"),
                store.renew_claim(claim),
                store.list_runs(limit=1),
                store.purge_runs(created_before=LONG_AGO),
            )
        ]
        await asyncio.gather(*(cancelled(call, some_delay()) for call in calls))
        await settled(store)
        assert checked_out(store) == 0
        assert await holds(store, claim)
        await store.release_claim(claim)
        found = await store.load_run("r")
        assert found is not None
        check_run(found.run)
        assert [check_step(each) is not None for each in found.steps] == [True]


# -- opening and closing ---------------------------------------------------------------


async def test_a_cancelled_opening_can_be_repeated_and_closed_without_a_leak(
    database_url: str,
) -> None:
    """Cancelled at any moment, also twice, an opening leaves no thread and no session."""
    threads = set(threading.enumerate())
    store = SqlWorkflowStore(database_url)
    for number in range(24):
        await cancelled(store.open(), random.choice([some_delay(), random.uniform(0, 0.1)]))
        if number % 4 == 1:
            await cancelled(store.open(), some_delay())
        if number % 2:
            await store.open()
            await store.create_run(run("r", number))
            assert check_run(await store.get_run("r")) == number
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.get_run("r")
    await settled()
    await threads_ended(threads)
    if database_url.startswith("postgres"):
        await no_sessions(database_url)


async def test_a_cancelled_closing_goes_on_to_its_end_and_the_store_opens_again(
    database_url: str,
) -> None:
    """Calls that were under way are completed; no thread and no session stays."""
    threads = set(threading.enumerate())
    store = SqlWorkflowStore(database_url)
    for number in range(24):
        await store.open()
        await store.create_run(run("r", number))
        writes = [
            asyncio.create_task(store.upsert_step("r", step(f"s{place}", number)))
            for place in range(5)
        ]
        await asyncio.sleep(0)
        await cancelled(store.close(), some_delay())
        if number % 2:
            await settled()
        await asyncio.gather(*writes)
        await store.open()
        steps = await store.list_steps("r")
        assert [check_step(each) for each in steps] == [number] * 5
        await cancelled(store.close(), some_delay())
        await store.close()
    await settled()
    await threads_ended(threads)
    if database_url.startswith("postgres"):
        await no_sessions(database_url)


async def test_a_cancelled_async_with_leaves_nothing_open(database_url: str) -> None:
    """Nobody closes what a cancelled `async with` was about to open, so it closes itself."""
    threads = set(threading.enumerate())

    async def use(store: WorkflowStore) -> None:
        async with store:
            await asyncio.Event().wait()

    for _ in range(12):
        store = SqlWorkflowStore(database_url)
        delay_s = random.choice([0.0, random.uniform(0, 0.05)])
        assert not await cancelled(use(store), delay_s)
        await settled()
        with pytest.raises(StoreClosedError):
            await store.get_run("r")
    await threads_ended(threads)
    if database_url.startswith("postgres"):
        await no_sessions(database_url)


async def test_an_opening_that_is_cancelled_does_not_close_a_store_that_was_open(
    database_url: str,
) -> None:
    """To open an open store does nothing, and so does to cancel that."""
    async with SqlWorkflowStore(database_url) as store:
        for _ in range(5):
            await cancelled(store.open(), some_delay())
            await settled()
            await store.create_run(run("r", 1))
            assert check_run(await store.get_run("r")) == 1


async def test_a_program_interrupted_amid_its_calls_ends_them_and_closes(
    database_url: str,
) -> None:
    """As on Ctrl-C: the main task is cancelled, once or twice, inside `async with`."""
    threads = set(threading.enumerate())

    async def work(mark: int) -> None:
        async with open_store(database_url) as store:
            await store.create_run(run("r", mark))
            await asyncio.gather(
                *(store.upsert_step("r", step(f"s{number}", mark)) for number in range(20))
            )
            await asyncio.Event().wait()

    for mark in range(8):
        main = asyncio.create_task(work(mark))
        await asyncio.sleep(random.uniform(0, 0.1))
        main.cancel()
        if mark % 2:
            await asyncio.sleep(random.uniform(0, 0.002))
            main.cancel()
        with pytest.raises(asyncio.CancelledError):
            await main
        await settled()
    await threads_ended(threads)
    if database_url.startswith("postgres"):
        await no_sessions(database_url)
    async with open_store(database_url) as store:
        check_run(await store.get_run("r"))
        for each in await store.list_steps("r"):
            check_step(each)


def test_a_loop_that_ends_amid_cancelled_calls_leaves_whole_rows(database_url: str) -> None:
    """`asyncio.run` cancels also what goes on in the background."""

    async def work(mark: int) -> None:
        async with open_store(database_url) as store:
            await store.create_run(run("r", mark))
            for number in range(20):
                await cancelled(store.upsert_step("r", step(f"s{number}", mark)), some_delay())
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0)
            closing.cancel()

    async def look() -> None:
        async with open_store(database_url) as store:
            check_run(await store.get_run("r"))
            for each in await store.list_steps("r"):
                check_step(each)

    for mark in range(5):
        asyncio.run(work(mark))
        asyncio.run(look())


# -- groups of tasks -------------------------------------------------------------------


async def in_one_group(*calls: Coroutine[Any, Any, object]) -> None:
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call)


async def test_a_failing_sibling_cancels_the_calls_of_its_task_group_and_nothing_else(
    store: WorkflowStore,
) -> None:
    """What the group had begun is whole; calls outside of the group come to their end."""
    await store.create_run(run("r"))
    for mark in range(1, 11):
        outside = asyncio.create_task(store.upsert_step("r", step("outside", mark)))

        async def fail() -> None:
            for _ in range(random.randint(0, 30)):
                await asyncio.sleep(0)
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as caught:
            await in_one_group(
                *(store.upsert_step("r", step(f"s{number}", mark)) for number in range(12)),
                store.get_run("r"),
                store.list_steps("r"),
                fail(),
            )
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        await outside
        await settled(store)
        assert checked_out(store) == 0
        assert check_step(await store.get_step("r", "outside")) == mark
        for found in await store.list_steps("r"):
            check_step(found)


async def test_a_failing_call_cancels_its_siblings_and_arrives_as_our_error(
    store: WorkflowStore,
) -> None:
    """`RunNotFoundError` is all that the group raises."""
    await store.create_run(run("other"))
    with pytest.raises(ExceptionGroup) as caught:
        await in_one_group(
            *(store.upsert_step("other", step(f"s{number}")) for number in range(20)),
            store.upsert_step("r", step("s")),
            store.update_context("r", {}),
        )
    assert {type(error) for error in caught.value.exceptions} == {RunNotFoundError}
    await settled(store)
    for found in await store.list_steps("other"):
        assert check_step(found) == 0
