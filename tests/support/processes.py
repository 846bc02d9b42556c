"""Test programs as processes, and queries of databases without the store."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import make_url

from support.waiting import PATIENCE_S

PROGRAMS = Path(__file__).with_name("programs")
Start: TypeAlias = Callable[..., Awaitable[Process]]


@asynccontextmanager
async def programs() -> AsyncIterator[Start]:
    """Yield a function that starts programs; those that still run are killed at the end."""
    started: list[Process] = []

    async def start(program: str, *arguments: str, stderr: int = PIPE) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", str(PROGRAMS / program), *arguments,
            stdin=PIPE, stdout=PIPE, stderr=stderr,
        )  # fmt: skip
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def output(process: Process, *, send: bytes = b"") -> str:
    """Send a program its last input, and return its output; it must end without an error."""
    async with asyncio.timeout(PATIENCE_S):
        stdout, stderr = await process.communicate(send)
    assert (process.returncode, stderr.decode()) == (0, "")
    return stdout.decode()


async def line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().strip()


async def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Query a database without the store."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(str(make_url(url).database))
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def count(url: str, table: str) -> int:
    ((found,),) = await query(url, f"SELECT count(*) FROM {table}")
    return int(found)


async def orphans(url: str) -> list[tuple[Any, ...]]:
    """Return the steps and claims without a run."""
    no_run = "WHERE run_task_id NOT IN (SELECT run_task_id FROM runs)"
    return await query(
        url,
        f"SELECT run_task_id, step_id FROM steps {no_run} "
        f"UNION ALL SELECT run_task_id, owner FROM claims {no_run}",
    )


async def check_file(url: str) -> None:
    """Assert that a SQLite file is sound; do nothing on PostgreSQL."""
    if url.startswith("sqlite"):
        assert await query(url, "PRAGMA integrity_check") == [("ok",)]
        assert await query(url, "PRAGMA foreign_key_check") == []
