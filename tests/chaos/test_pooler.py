"""The pooler of the kit is killed and started again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import asyncpg
import pytest

from workflow_store.testing.faults import Pgbouncer, PostgresqlServer

pytestmark = [pytest.mark.slow, pytest.mark.measured]


async def answer(url: str) -> int:
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        return int(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


async def test_a_killed_pooler_refuses_connections_until_it_is_started_again() -> None:
    with tempfile.TemporaryDirectory(prefix="wfs_pooler_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = PostgresqlServer(folder)
        await server.create()
        pooler = Pgbouncer(server.url(), folder)
        try:
            await pooler.start()
            assert await answer(pooler.url) == 1
            await pooler.kill()
            with pytest.raises(OSError, match=r"."):
                await answer(pooler.url)
            await pooler.kill()  # it has ended
            await pooler.start()
            assert await answer(pooler.url) == 1
        finally:
            await pooler.kill()
            await server.stop()
