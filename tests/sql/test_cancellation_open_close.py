"""Cancelled opening and closing: no thread and no session stays, the store opens again."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from support.cancellation import cancelled, settled, some_delay
from support.failures import no_sessions
from support.marked_runs import check_run, check_step, run, step
from support.waiting import threads_ended
from workflow_store import (
    SqlWorkflowStore,
    StoreClosedError,
    WorkflowStore,
    open_store,
)


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
