"""A program that uses the installed package without its checkout."""

import asyncio
import sys
from importlib.resources import files
from pathlib import Path

from alembic.script import ScriptDirectory

from workflow_store import (
    RunNotFoundError,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStore,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION


async def use(store: WorkflowStore) -> None:
    counts: dict[str, int] = {"pages": 3}
    async with store:
        await store.create_run(
            WorkflowExecutionState(
                run_task_id="r", agent_id="a", thread_id="t", user_id="u", definition={}
            )
        )
        await store.update_context("r", counts)
        step = WorkflowStepState(step_id="s", status=TaskStatus.COMPLETED, result=counts)
        await store.upsert_step("r", step)
        steps: list[WorkflowStepState] = await store.list_steps("r")
        run: WorkflowExecutionState | None = await store.get_run("r")
        assert steps == [step]
        assert run is not None
        assert run.context == counts
        await store.delete_run("r")
        try:
            await store.upsert_step("r", step)
        except RunNotFoundError as error:
            assert error.run_task_id == "r"


async def main(postgres_url: str) -> None:
    package = files("workflow_store")
    assert "site-packages" in str(package)
    assert (package / "py.typed").is_file()
    assert (package / "migrations" / "env.py").is_file()
    assert migrate.version_location() == Path(str(package)) / "migrations" / "versions"
    in_a_host = ScriptDirectory(".", version_locations=["workflow_store:migrations/versions"])
    assert in_a_host.get_heads() == [REVISION]
    assert "CREATE TABLE steps" in await migrate.offline_sql("postgresql://")
    await use(open_store("memory://"))
    await use(open_store("sqlite:///consumer.db"))
    await migrate.upgrade(postgres_url)
    await migrate.check(postgres_url)
    await use(open_store(postgres_url))
    await migrate.downgrade(postgres_url, "base")
    print("the installed wheel works on memory, SQLite and PostgreSQL")


asyncio.run(main(sys.argv[1]))
