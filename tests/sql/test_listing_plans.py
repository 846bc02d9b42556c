"""Listings read what an index leads to, whatever is asked for and however much there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from workflow_store import SqlWorkflowStore, TaskStatus, open_store
from workflow_store.sql.queries import listing
from workflow_store.testing import a_run, a_step

pytestmark = [pytest.mark.slow, pytest.mark.measured]

RUNS = 3_000
PLACES = 60
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "ix_runs_created_at_run_task_id"),
    "agent": ({"agent_id": "agent 7"}, "ix_runs_agent_id_created_at_run_task_id"),
    "thread": ({"thread_id": "thread 7"}, "ix_runs_thread_id_created_at_run_task_id"),
    "user": ({"user_id": "user 7"}, "ix_runs_user_id_created_at_run_task_id"),
    "workspace": ({"workspace_id": "space 7"}, "ix_runs_workspace_id_created_at_run_task_id"),
    "before": ({"created_before": BEGIN + timedelta(days=9)}, "ix_runs_created_at_run_task_id"),
    "after": ({"created_after": BEGIN + timedelta(days=1)}, "ix_runs_created_at_run_task_id"),
    "a rare status": ({"step_status": "failed"}, "ix_steps_status_run_task_id"),
}


async def filled(store: SqlWorkflowStore) -> None:
    """Keep runs of many agents, threads, users and workspaces, a few of them with a step."""
    await store.create_run(a_run("first", created_at=BEGIN + timedelta(days=5)))
    columns = "definition, input, context, created_at, updated_at"
    async with store.engine.begin() as connection:
        rows = [
            {
                "run": f"run {number}", "agent": f"agent {number % PLACES}",
                "thread": f"thread {number % PLACES}", "user": f"user {number % PLACES}",
                "space": f"space {number % PLACES}",
            }
            for number in range(RUNS)
        ]  # fmt: skip
        await connection.execute(
            text(
                "INSERT INTO runs (run_task_id, agent_id, thread_id, user_id, workspace_id, "
                f"{columns}) SELECT :run, :agent, :thread, :user, :space, {columns} FROM runs "
                "WHERE run_task_id = 'first'"
            ),
            rows,
        )
    for number in range(0, RUNS, RUNS // 5):
        await store.upsert_step(f"run {number}", a_step(status="failed"))
    completed = "SELECT run_task_id, 'done', 'completed' FROM runs"
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"INSERT INTO steps (run_task_id, step_id, status) {completed}"
        )
        await connection.exec_driver_sql("ANALYZE")


@pytest.mark.parametrize("filters", FILTERS)
async def test_each_filter_has_its_index(database_url: str, filters: str) -> None:
    """On the first page and on a later one, and sorting no more than what a page holds."""
    arguments, index = FILTERS[filters]
    sent: list[tuple[str, Any]] = []
    async with open_store(database_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        await filled(store)
        engine = store.engine.sync_engine

        @event.listens_for(engine, "before_cursor_execute")
        def note(_: Any, __: Any, sql: str, parameters: Any, ___: Any, ____: bool) -> None:
            sent.append((sql, parameters))

        first = await store.list_runs(limit=3, **arguments)
        await store.list_runs(limit=3, cursor=first.next_cursor, **arguments)
        event.remove(engine, "before_cursor_execute", note)
        queries = [(sql, given) for sql, given in sent if "FROM" in sql]
        explain = "EXPLAIN QUERY PLAN " if "sqlite" in database_url else "EXPLAIN "
        plans = []
        async with store.engine.connect() as connection:
            for sql, given in queries:
                rows = await connection.exec_driver_sql(explain + sql, given)
                plans.append("\n".join(str(row) for row in rows))
    assert any(index in plan for plan in plans)
    for plan in plans:
        assert "Seq Scan on runs" not in plan
        assert "SCAN runs" not in plan.replace("SCAN runs USING", "")
        assert "definition" not in plan
    # As many queries for a page of three as for any other: none for each run.
    assert len(queries) in {4, 8}


async def test_a_page_asks_for_no_json_value(database_url: str) -> None:
    """Not even in order to leave it out."""
    async with open_store(database_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(a_run(context="payload"))
        sent: list[str] = []

        @event.listens_for(store.engine.sync_engine, "before_cursor_execute")
        def note(_: Any, __: Any, sql: str, ___: Any, ____: Any, _____: bool) -> None:
            sent.append(sql)

        assert len((await store.list_runs()).runs) == 1
    assert not any(
        name in sql for sql in sent for name in ("definition", "input", "context", "result")
    )


@pytest.mark.parametrize(("few", "near"), [(1_000, 10_000), (0, 10_000), (0, 4), (0, 0)])
async def test_each_way_to_a_status_gives_the_same_pages(
    database_url: str, monkeypatch: pytest.MonkeyPatch, few: int, near: int
) -> None:
    """Few runs that are looked up, many that are near, and many that are not."""
    monkeypatch.setattr(listing, "_FEW", few)
    monkeypatch.setattr(listing, "_NEWEST", near)
    expected: list[str] = []
    async with open_store(database_url) as store:
        for number in range(30):
            status = "failed" if number in {0, 1, 2, 9, 10, 11, 12, 28} else "running"
            run = a_run(f"run {number:02d}", created_at=BEGIN + timedelta(days=number))
            await store.create_run(run)
            for step_id in ("a", "b"):
                await store.upsert_step(run.run_task_id, a_step(step_id, status=status))
            if status == "failed" and number < 28:
                expected.insert(0, run.run_task_id)
        found: list[str] = []
        cursor = None
        while True:
            page = await store.list_runs(
                step_status=TaskStatus.FAILED,
                created_before=BEGIN + timedelta(days=28),
                limit=2,
                cursor=cursor,
            )
            found += [run.run_task_id for run in page.runs]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert found == expected
