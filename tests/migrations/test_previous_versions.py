"""Processes of an older version keep working on the newest schema, through a deploy."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from support import ROOT
from support.programs.record_statements import every, present, recorded
from workflow_store import SqlWorkflowStore
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION
from workflow_store.sql.queries.statements import Statements
from workflow_store.testing import a_run, a_step

RECORDED = sorted((Path(__file__).parent / "previous").glob("*.json"))

Texts = dict[str, list[tuple[str, list[str]]]]


def test_the_statements_of_every_revision_were_recorded() -> None:
    """`python -m tests.support.programs.record_statements` writes them."""
    versions = ROOT / "migrations" / "versions"
    revisions = {"_".join(file.name.split("_")[:2]) for file in versions.glob("*.py")}
    assert {file.stem for file in RECORDED} == revisions


def test_the_recording_of_the_newest_revision_is_of_the_statements_as_they_are() -> None:
    """If they have changed, record them again: with a newer revision it is too late."""
    (newest,) = (file for file in RECORDED if file.stem == REVISION)
    now = {database: recorded(statements) for database, statements in present().items()}
    assert json.loads(newest.read_text("utf-8")) == now


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_recording_leaves_out_nothing(database: str) -> None:
    statements = present()[database]
    names = {*vars(Statements), *vars(statements), *vars(statements.writes)}
    public = {name for name in names if not name.startswith("_")} - {"writes", "fenced"}
    fenced = {f"fenced {name}" for name in vars(statements.writes) if not name.startswith("_")}
    assert set(every(statements)) == public | fenced


@pytest.fixture(params=RECORDED, ids=lambda file: file.stem)
def texts(empty_url: str, request: pytest.FixtureRequest) -> Texts:
    database = "sqlite" if empty_url.startswith("sqlite") else "postgresql"
    texts: dict[str, Texts] = json.loads(request.param.read_text("utf-8"))
    return texts[database]


@pytest.mark.usefixtures("next_version")
async def test_an_older_version_reads_and_writes_the_newest_schema(
    empty_url: str, texts: Texts
) -> None:
    """This version reads what it writes, and the other way round."""
    await migrate.upgrade(empty_url)
    async with SqlWorkflowStore(empty_url) as store:
        await run(empty_url, texts, "create_run", old_run("old"))
        await run(empty_url, texts, "upsert_step", old_step("old", "a", '{"n": 1}'))
        await run(empty_url, texts, "update_context", old_run("old", context='{"c": 2}'))
        if "upsert_step, many" in texts:
            await run(empty_url, texts, "create_run, many", array(old_run("many")))
            await run(
                empty_url, texts, "upsert_step, many", array(old_step("many", "b", '"of many"'))
            )
            await run(
                empty_url, texts, "update_context, many", array(old_run("many", context="[3]"))
            )
            many = await store.load_run("many")
            assert many is not None
            assert (many.run.context, many.steps[0].result) == ([3], "of many")
            await run(empty_url, texts, "delete_run, many", array({"run_task_id": "many"}))
            assert await store.get_run("many") is None
        old = await store.load_run("old")
        assert old is not None
        assert old.run.context == {"c": 2}
        assert [(step.step_id, step.result) for step in old.steps] == [("a", {"n": 1})]

        await store.create_run(a_run("new", context=[4]))
        await store.upsert_step("new", a_step("a", result="new"))
        for read in ("get_run", "get_step", "list_steps", "load_run"):
            rows = await run(empty_url, texts, read, {"run_task_id": "new", "step_id": "a"})
            values = [value for row in rows for value in row]
            assert ("[4]" if read == "get_run" else '"new"') in values

        await run(empty_url, texts, "delete_run", {"run_task_id": "old"})
        assert await store.load_run("old") is None
        assert await store.list_steps("old") == []


@pytest.mark.usefixtures("next_version")
async def test_an_older_version_commits_and_shares_runs_on_the_newest_schema(
    empty_url: str, texts: Texts
) -> None:
    """A claim that this version gives fences the writes of the older one."""

    async def write(name: str, values: dict[str, Any]) -> list[Any]:
        if f"{name}, many" in texts:
            return await run(empty_url, texts, f"{name}, many", array(values))
        return await run(empty_url, texts, name, values)

    await migrate.upgrade(empty_url)
    async with SqlWorkflowStore(empty_url) as store:
        await store.create_run(a_run())
        await write("commit_step", old_run("run", context="[1]") | old_step("run", "a", "[2]"))
        snapshot = await store.load_run("run")
        assert snapshot is not None
        assert (snapshot.run.context, [each.result for each in snapshot.steps]) == ([1], [[2]])

        await store.upsert_step("run", a_step("b", wait_task_id="w"))
        ended = {"ended_0": "completed", "ended_1": "failed", "ended_2": "canceled"}
        rows = await run(empty_url, texts, "find_waiting_step", {"wait_task_id": "w", **ended})
        assert [tuple(row)[:3] for row in rows] == [("run", "b", "pending")]

        claim = await store.claim_run("run", owner="me")
        assert claim is not None
        for token, count in ((claim.token, 1), (claim.token + 1, 0)):
            key = {"run_task_id": "run", "token": token, "lease_s": 60.0}
            assert len(await run(empty_url, texts, "get_claim", key)) == count
            assert len(await write("renew_claim", key)) == count
            assert len(await run(empty_url, texts, "renew_locked_claim", key)) == count

        for name in ("create_run", "update_context", "upsert_step", "commit_step", "delete_run"):
            row = old_run("run", context=f'"{name}"') | old_step("run", name, "[3]")
            before = await store.load_run("run")
            fence = {"fence_run": "run", "fence_token": claim.token}
            await write(f"fenced {name}", row | fence | {"fence_token": claim.token + 1})
            assert await store.load_run("run") == before
            await write(f"fenced {name}", row | fence)
            assert await store.load_run("run") != before
        assert before is not None
        assert before.run.context == "commit_step"
        written = [each.step_id for each in before.steps]
        assert written == ["a", "b", "upsert_step", "commit_step"]
        assert await store.load_run("run") is None


def old_run(run_task_id: str, *, context: str = "{}") -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "run_task_id": run_task_id, "agent_id": "a", "thread_id": "t", "user_id": "u",
        "workspace_id": None, "entry_point": None, "definition": "{}", "input": "{}",
        "context": context, "created_at": now, "updated_at": now,
    }  # fmt: skip


def old_step(run_task_id: str, step_id: str, result: str) -> dict[str, Any]:
    return {
        "run_task_id": run_task_id, "step_id": step_id, "status": "completed", "result": result,
        "error": None, "started_at": datetime.now(UTC), "completed_at": None, "wait_task_id": None,
    }  # fmt: skip


def array(row: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in row.items()}


async def run(url: str, texts: Texts, name: str, values: dict[str, Any]) -> list[Any]:
    """Run recorded statements as the older version's driver does."""
    rows: list[Any] = []
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA foreign_keys=ON")
            for sql, names in texts[name]:
                given = [values[each] for each in names]
                times = [
                    f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value
                    for value in given
                ]
                rows += connection.execute(sql, times).fetchall()
            connection.commit()
        return rows
    connection_ = await asyncpg.connect(url)
    try:
        for sql, names in texts[name]:
            rows += await connection_.fetch(sql, *(values[each] for each in names))
    finally:
        await connection_.close()
    return rows
