"""Several processes on one database: side by side, and against each other."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.processes import Start, check_file, line, orphans, output, query
from support.waiting import PATIENCE_S
from workflow_store import (
    SqlWorkflowStore,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    open_store,
)

pytestmark = pytest.mark.slow


def run(run_task_id: str) -> WorkflowExecutionState:
    return WorkflowExecutionState(
        run_task_id=run_task_id, agent_id="a", thread_id="t", user_id="u", definition={}
    )


# -- side by side ----------------------------------------------------------------------


async def test_six_processes_writing_at_once_end_without_an_error_and_with_every_row(
    database_url: str, start: Start
) -> None:
    """Steps and contexts of shared and of own runs: none fails, none is lost or mixed up."""
    workers, steps, contexts = [str(number) for number in range(6)], 400, 100
    async with open_store(database_url) as store:
        for run_task_id in ("shared", *(f"own-{worker}" for worker in workers)):
            await store.create_run(run(run_task_id))
        processes = [
            await start("write_many.py", database_url, worker, str(steps), str(contexts))
            for worker in workers
        ]
        await asyncio.gather(*map(output, processes))

        for worker in workers:
            own = await store.list_steps(f"own-{worker}")
            assert {step.step_id for step in own} == {
                f"{worker}-{number}" for number in range(0, steps, 2)
            }
            found = await store.get_run(f"own-{worker}")
            assert found is not None
            assert found.context == {"worker": worker, "number": contexts - 2}
        shared = await store.list_steps("shared")
        assert {step.step_id: step.result for step in shared} == {
            f"{worker}-{number}": {"worker": worker, "number": number}
            for worker in workers
            for number in range(1, steps, 2)
        }
        assert len(shared) == len(workers) * steps // 2
        # Each task of a worker awaited its writes one after the other.
        place = {step.step_id: index for index, step in enumerate(shared)}
        for worker in workers:
            for first in (1, 3):
                in_order = [place[f"{worker}-{number}"] for number in range(first, steps, 4)]
                assert in_order == sorted(in_order)
        found = await store.get_run("shared")
        assert found is not None
        assert found.context["worker"] in workers
        assert found.context["number"] % 2 == 1
    await check_file(database_url)


async def test_processes_that_open_a_new_file_at_once_all_get_to_use_it(
    tmp_path: Path, start: Start
) -> None:
    """They migrate the file and switch it to the write-ahead log in each other's way."""
    processes = [await start("open_at_once.py") for _ in range(6)]
    assert await asyncio.gather(*map(line, processes)) == ["ready"] * 6
    for round_ in range(8):
        url = f"sqlite:///{tmp_path}/{round_}.db"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n".encode())
        assert await asyncio.gather(*map(line, processes)) == ["ready"] * 6
        await check_file(url)
        assert await query(url, "SELECT count(*) FROM workflow_store_alembic_version") == [(1,)]
    await asyncio.gather(*map(output, processes))


async def test_steps_first_inserted_at_once_have_one_row_and_one_order_for_all_readers(
    database_url: str, start: Start
) -> None:
    """Four processes and this one insert the same ids; no reader ever sees another order."""
    steps = 60
    expected = {f"step-{number}" for number in range(steps)}
    async with open_store(database_url) as first, open_store(database_url) as second:
        await first.create_run(run("shared"))
        processes = [
            await start("insert_same_steps.py", database_url, str(seed), str(steps))
            for seed in range(4)
        ]
        assert await asyncio.gather(*map(line, processes)) == ["ready"] * 4
        seen: list[list[str]] = []

        async def insert(step_id: str) -> None:
            await first.upsert_step("shared", WorkflowStepState(step_id=step_id, result="5"))

        async def read(store: WorkflowStore) -> None:
            while not seen or len(seen[-1]) < steps:
                seen.append([step.step_id for step in await store.list_steps("shared")])

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(output(process, send=b"go\n"))
            for step_id in sorted(expected) * 2:
                group.create_task(insert(step_id))
            group.create_task(read(first))
            group.create_task(read(second))

        final = await first.list_steps("shared")
        order = [step.step_id for step in final]
        assert len(order) == steps
        assert set(order) == expected
        assert {step.result for step in final} <= set("012345")
        assert await second.list_steps("shared") == final
        for earlier in seen:
            held = set(earlier)
            assert earlier == [step_id for step_id in order if step_id in held]
    rows = await query(database_url, "SELECT step_id FROM steps ORDER BY seq")
    assert [step_id for (step_id,) in rows] == order


# -- in one process --------------------------------------------------------------------


async def test_stores_on_different_databases_opened_at_once_each_get_their_own_tables(
    tmp_path: Path, empty_postgres_url: str
) -> None:
    """Several migrations in one event loop do not get into each other's way."""
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    stores = [SqlWorkflowStore(url) for url in (*urls, *["sqlite://"] * 6)]
    stores.append(SqlWorkflowStore(empty_postgres_url, migrate=True))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(store.open() for store in stores))
        for number, store in enumerate(stores):
            await store.create_run(run(f"r{number}"))
        for number, url in enumerate(urls):
            assert await query(url, "SELECT run_task_id FROM runs") == [(f"r{number}",)]
    finally:
        for store in stores:
            await store.close()


async def test_stores_opened_at_once_in_several_threads_each_get_their_own_tables(
    tmp_path: Path,
) -> None:
    """One event loop in each thread, as a server with worker threads has."""
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    barrier = threading.Barrier(len(urls))

    async def use(number: int) -> None:
        async with asyncio.timeout(PATIENCE_S), open_store(urls[number]) as store:
            await store.create_run(run(f"r{number}"))

    def work(number: int) -> None:
        barrier.wait(PATIENCE_S)
        asyncio.run(use(number))

    with ThreadPoolExecutor(len(urls)) as threads:
        list(threads.map(work, range(len(urls))))
    for number, url in enumerate(urls):
        assert await query(url, "SELECT run_task_id FROM runs") == [(f"r{number}",)]


# -- against each other ----------------------------------------------------------------


async def test_no_step_outlives_a_run_that_is_deleted_while_others_upsert_its_steps(
    database_url: str, start: Start
) -> None:
    """After a deletion has returned there is no step of the run, nor does one come later."""
    async with open_store(database_url) as store:
        writers = [
            await start("upsert_steps_of_deleted_run.py", database_url, str(number))
            for number in range(2)
        ]
        assert await asyncio.gather(*map(line, writers)) == ["ready"] * 2
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(25):
                await store.create_run(run("deleted"))
                while len(await store.list_steps("deleted")) < random.choice([0, 1, 5, 20]):
                    pass
                await store.delete_run("deleted")
                assert await store.list_steps("deleted") == []
                assert await store.get_run("deleted") is None
                assert await orphans(database_url) == []
        counts = [
            tuple(map(int, printed.split()))
            for printed in await asyncio.gather(
                *(output(writer, send=b"end\n") for writer in writers)
            )
        ]
        # One of the two may not get its turn on a busy machine.
        assert all(map(sum, zip(*counts, strict=True))), counts
        assert await store.list_steps("deleted") == []
    assert await query(database_url, "SELECT * FROM steps") == []
    await check_file(database_url)
