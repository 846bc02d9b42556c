"""Cancelled calls: nothing is half-written, no connection leaks, the store stays usable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from support.cancellation import cancelled, settled, some_delay
from support.databases import checked_out
from support.failures import locked, no_sessions, sessions
from support.marked_runs import (
    LONG_AGO,
    READS,
    WRITES,
    a_read,
    a_write,
    check_run,
    check_step,
    run,
    step,
)
from support.waiting import PATIENCE_S
from workflow_store import (
    ResumableWorkflowStore,
    RunNotFoundError,
    SqlWorkflowStore,
    WorkflowStore,
    open_store,
)


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
        before = set(await sessions(postgres_url))
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
        assert before <= set(after)
        assert len(after) <= 4
        assert await sessions(postgres_url, that="state <> 'idle'") == []
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
    """A write that was begun may still complete, but later writes stay."""
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


async def in_one_group(*calls: Coroutine[Any, Any, object]) -> None:
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call)


async def test_a_failing_sibling_cancels_the_calls_of_its_task_group_and_nothing_else(
    store: WorkflowStore,
) -> None:
    """Writes of the group are whole; calls outside of the group complete."""
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
