"""The web application of the examples, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from httpx import ASGITransport, AsyncClient

from support import ROOT
from support.failures import cancel_waiting
from support.schema import file_of
from workflow_store import (
    SchemaMismatchError,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    open_store,
)
from workflow_store.testing import a_run, a_step

sys.path.insert(0, str(ROOT / "examples"))

from web_app import make_app

HOSTILE = "a/b c\n%2F../<script>alert(1)</script>\u202e"


@contextlib.asynccontextmanager
async def asked(url: str, **options: Any) -> AsyncIterator[AsyncClient]:
    """Start the application as a server does, and ask it without a network."""
    app = make_app(url, **options)
    transport = ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://application") as client,
    ):
        yield client


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[AsyncClient]:
    async with asked(database_url) as client:
        yield client


async def keep(url: str, run: WorkflowExecutionState, *steps: WorkflowStepState) -> None:
    async with open_store(url, migrate=True) as store:
        await store.create_run(run)
        for step in steps:
            await store.upsert_step(run.run_task_id, step)


async def test_runs_are_listed_page_by_page(database_url: str, client: AsyncClient) -> None:
    """The cursor of one page gives the next, until there is none."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(5):
        agent = "other" if number == 4 else "mine"
        await keep(
            database_url,
            a_run(f"run-{number}", agent_id=agent, created_at=begin + timedelta(hours=number)),
            a_step(status="failed" if number == 1 else "completed"),
        )
    found, parameters = [], {"agent_id": "mine", "limit": "3"}
    while True:
        page = (await client.get("/runs", params=parameters)).raise_for_status().json()
        found += [run["run_task_id"] for run in page["runs"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert found == ["run-3", "run-2", "run-1", "run-0"]

    since = {"step_status": "failed", "created_after": "2026-01-01T00:00:00Z"}
    (run,) = (await client.get("/runs", params=since)).json()["runs"]
    assert (run["run_task_id"], run["step_counts"]) == ("run-1", {"failed": 1})


async def test_a_run_and_its_steps_come_as_they_were_written(
    database_url: str, client: AsyncClient
) -> None:
    """Their wire form is read back as the same states, whatever is in their values."""
    run = a_run(HOSTILE, definition={"big": 2**70, "minus": -0.0, "lone": "\ud800"})
    steps = [a_step("one", status="completed", result=[1, 1.0, "\x00"]), a_step("two")]
    await keep(database_url, run, *steps)
    of_it = {"id": HOSTILE}
    got = (await client.get("/run", params=of_it)).raise_for_status()
    assert WorkflowExecutionState.model_validate_json(got.content) == run
    assert got.headers["content-type"] == "application/json"
    got = (await client.get("/run/steps", params=of_it)).raise_for_status()
    members = [step.model_dump_json() for step in steps]
    assert got.text == f"[{','.join(members)}]"


async def test_a_run_is_shown_as_a_page(database_url: str, client: AsyncClient) -> None:
    """What is in its values is text there, and no markup."""
    await keep(database_url, a_run(HOSTILE), a_step("fetch", error="<script>alert(2)</script>"))
    shown = (await client.get("/run/page", params={"id": HOSTILE})).raise_for_status()
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "fetch" in shown.text
    assert "<script" not in shown.text


async def test_an_answer_completes_the_step_that_waits(
    database_url: str, client: AsyncClient
) -> None:
    """Once: then nothing waits under that id any more."""
    step = a_step("approve", status=TaskStatus.INPUT_REQUIRED, wait_task_id="w/7")
    await keep(database_url, a_run("run"), step)
    given = {"approved": True, "sum": 1.0}
    answered = await client.post("/answer", params={"to": "w/7"}, json=given)
    written = WorkflowStepState.model_validate_json(answered.raise_for_status().content)
    assert (written.status, written.result) == (TaskStatus.COMPLETED, given)
    async with open_store(database_url, migrate=False) as store:
        assert await store.get_step("run", "approve") == written
    again = await client.post("/answer", params={"to": "w/7"}, json=given)
    assert (again.status_code, "No step waits" in again.text) == (404, True)


@pytest.mark.parametrize("path", ["/run", "/run/steps", "/run/page"])
async def test_a_run_that_is_not_there_is_404(client: AsyncClient, path: str) -> None:
    missing = await client.get(path, params={"id": "n0pe"})
    assert (missing.status_code, "'n0pe'" in missing.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/run", {"id": ""}),
        ("/run", {"id": "\x00"}),
        ("/run/steps", {"id": "x" * 1025}),
        ("/runs", {"limit": "0"}),
        ("/runs", {"cursor": "n0pe"}),
        ("/runs", {"created_after": "2026-01-01T00:00:00"}),
        ("/runs", {"step_status": "n0pe"}),
        ("/runs", {"agnet_id": "a typo"}),
    ],
)
async def test_what_breaks_a_rule_is_422(
    client: AsyncClient, path: str, parameters: dict[str, str]
) -> None:
    """With a word on what is wrong."""
    wrong = await client.get(path, params=parameters)
    assert wrong.status_code == 422
    assert wrong.json()["detail"]


async def test_an_answer_that_is_not_json_is_422(database_url: str, client: AsyncClient) -> None:
    """Nothing of it is written, and the step still waits."""
    step = a_step("approve", status=TaskStatus.INPUT_REQUIRED, wait_task_id="w")
    await keep(database_url, a_run("run"), step)
    for body in (b'{"sum": NaN}', b"n0pe"):
        headers = {"content-type": "application/json"}
        wrong = await client.post("/answer", params={"to": "w"}, content=body, headers=headers)
        assert wrong.status_code == 422
    async with open_store(database_url, migrate=False) as store:
        assert await store.get_step("run", "approve") == step


@contextlib.asynccontextmanager
async def steps_locked(url: str) -> AsyncIterator[None]:
    """Let no other session write to the steps."""
    file = file_of(url)
    if file is not None:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
        return
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE steps IN SHARE MODE")
            yield
    finally:
        await connection.close()


async def test_a_store_that_is_not_available_is_503_with_when_to_try_again(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's log names the database; the client is told nothing of it."""
    step = a_step("approve", status=TaskStatus.INPUT_REQUIRED, wait_task_id="w")
    await keep(database_url, a_run("run"), step)
    async with asked(database_url, busy_timeout_s=0.1) as client:
        async with steps_locked(database_url):
            asking = asyncio.create_task(client.post("/answer", params={"to": "w"}, json=True))
            if file_of(database_url) is None:
                await cancel_waiting(database_url)
            failed = await asking
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "5")
        assert "://" not in failed.text
        assert "://" in caplog.text
        again = await client.post("/answer", params={"to": "w"}, json=True)
        assert again.status_code == 200


async def test_it_does_not_start_on_a_database_that_is_not_up_to_date(
    empty_postgres_url: str,
) -> None:
    """What to do is said before the first request, and not by it."""
    with pytest.raises(SchemaMismatchError, match="workflow-store migrate"):
        async with asked(empty_postgres_url):
            pass
