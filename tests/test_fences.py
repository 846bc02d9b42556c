"""A fenced write and a takeover that meet: one comes before the other, whole."""

from __future__ import annotations

import asyncio

import asyncpg

from conftest import until
from workflow_store import open_store
from workflow_store.testing import a_run, a_step

WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def test_a_takeover_waits_for_a_fenced_write_that_has_passed_its_check(
    postgres_url: str,
) -> None:
    """Else the write would be committed after it, unseen by who took over and loaded the run."""
    reader, writer = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    try:
        async with open_store(postgres_url) as store, open_store(postgres_url) as other:
            await store.create_run(a_run())
            await store.upsert_step("run", a_step(result="before"))
            claim = await store.claim_run("run", owner="me")
            assert claim is not None

            async def waiting(backends: int) -> bool:
                return bool(await reader.fetchval(WAITING) == backends)

            async with writer.transaction():
                await writer.execute("UPDATE steps SET status = status")  # holds the step
                fenced = store.fenced(claim)
                write = asyncio.create_task(fenced.upsert_step("run", a_step(result="mine")))
                await until(lambda: waiting(1))
                takeover = asyncio.create_task(other.claim_run("run", owner="me"))
                await until(lambda: waiting(2))
                assert not takeover.done()
            await write
            taken = await takeover
            assert taken is not None
            assert taken.token > claim.token
            step = await other.get_step("run", "step")
            assert step is not None
            assert step.result == "mine"
    finally:
        await reader.close()
        await writer.close()
