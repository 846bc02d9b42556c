"""Databases before and after a migration, looked at and changed with nothing of the package."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
from sqlalchemy import Connection, inspect, make_url, select, text
from sqlalchemy import table as table_clause
from sqlalchemy.engine.interfaces import ReflectedIndex

from support import ROOT
from support.databases import Target, on_server
from support.engines import engine_of_a_host
from support.waiting import PATIENCE_S
from workflow_store import SqlWorkflowStore, WorkflowExecutionState, WorkflowStepState
from workflow_store.sql import migrate
from workflow_store.sql.models import VERSION_TABLE, Base

OURS = {*Base.metadata.tables, VERSION_TABLE}
ODD_SCHEMA = "We ird 100%"


def alembic(*arguments: str, succeeds: bool = True, **environment: str) -> tuple[str, str]:
    """Run a command in the checkout and give what it printed: its output and its log."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (ended.returncode == 0) == succeeds, ended.stderr
    return ended.stdout, ended.stderr


def file_of(url: str) -> str | None:
    """Return the file of a SQLite URL, None for another database."""
    parsed = make_url(url)
    return parsed.database if parsed.get_backend_name() == "sqlite" else None


async def execute(url: str, script: str) -> None:
    """Run SQL with nothing but the driver."""
    file = file_of(url)
    if file is None:
        await on_server(url, script)
        return
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)


def describe(connection: Connection) -> dict[str, list[str]]:
    """Return the rows of a database by table; the keys begin with a schema's name."""
    inspector = inspect(connection)
    found: dict[str, list[str]] = {}
    for schema in inspector.get_schema_names():
        if schema == "information_schema":
            continue
        found[schema] = []
        for name in inspector.get_table_names(schema):
            parts: list[Any] = [
                *inspector.get_columns(name, schema),
                inspector.get_pk_constraint(name, schema),
                *inspector.get_foreign_keys(name, schema),
                *inspector.get_unique_constraints(name, schema),
                *inspector.get_check_constraints(name, schema),
                *(with_conditions(index) for index in inspector.get_indexes(name, schema)),
            ]
            if connection.dialect.name == "postgresql":
                collations = text(
                    "SELECT column_name, collation_name FROM information_schema.columns "
                    "WHERE table_schema = :schema AND table_name = :name"
                )
                parts += connection.execute(collations, {"schema": schema, "name": name})
            parts += connection.execute(
                select(text("*")).select_from(table_clause(name, schema=schema))
            )
            found[f"{schema}.{name}"] = sorted(map(repr, parts))
    return found


def with_conditions(index: ReflectedIndex) -> dict[str, Any]:
    """Return an index with its condition as text instead of an object."""
    options = index.get("dialect_options", {})
    return {**index, "dialect_options": {name: str(value) for name, value in options.items()}}


async def contents(url: str) -> dict[str, list[str]]:
    async with engine_of_a_host(url) as engine, engine.connect() as connection:
        return await connection.run_sync(describe)


async def tables(url: str) -> set[str]:
    """Return the names of all tables, with their schema unless it is the default."""
    names = {name for name in await contents(url) if "." in name}
    return {name.removeprefix("main.").removeprefix("public.") for name in names}


async def add_rows(url: str, *, schema: str | None = None) -> None:
    """Keep a run and two steps in a database that is migrated."""
    async with SqlWorkflowStore(url, schema=schema, migrate=False) as store:
        run = WorkflowExecutionState(
            run_task_id="r", agent_id="a", thread_id="t", user_id="u", definition={"steps": []}
        )
        await store.create_run(run)
        for step_id in ("first", "second"):
            await store.upsert_step("r", WorkflowStepState(step_id=step_id, result=[1.0]))


async def set_revision(url: str, revision: str) -> None:
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")


@asynccontextmanager
async def another_migration(url: str) -> AsyncIterator[None]:
    """Hold the lock of the migrations in another session."""
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()
        return
    session = await asyncpg.connect(url)
    try:
        take = "SELECT pg_advisory_lock(hashtextextended($1, 0))"
        await session.execute(take, "workflow_store.", timeout=PATIENCE_S)
        yield
        await session.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await session.close()


async def opened(target: Target, **options: Any) -> None:
    async with SqlWorkflowStore(target, **options):
        pass


async def opened_and_migrated(target: Target, **options: Any) -> None:
    await opened(target, migrate=True, **options)


async def opened_and_checked(target: Target, **options: Any) -> None:
    await opened(target, migrate=False, **options)


async def downgraded(target: Target) -> None:
    await migrate.downgrade(target, "base")
