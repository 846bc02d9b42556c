"""The stores of this package, with their defaults."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from workflow_store import (
    ResumableWorkflowStore,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    open_store,
)

from ..servers import Servers
from ..subject import CRASH, Subject
from ..values import Json, Values

__all__ = ["OursPostgresql", "OursSqliteFull", "OursSqliteNormal"]

FILLED = 100
"""Steps in a run that single steps are read from."""

LEASE_S = 86_400.0


class OursSqliteFull(Subject):
    name = "workflow-store, SQLite FULL"
    database = "SQLite"
    synchronous: Literal["FULL", "NORMAL"] = "FULL"

    async def _open(self, servers: Servers) -> Any:
        file = await servers.sqlite_file(f"ours_{self.synchronous}", our_tables=False)
        return open_store(f"sqlite:///{file}", synchronous=self.synchronous)

    async def setup(self, servers: Servers) -> None:
        self._store = await self._open(servers)
        await self._store.open()
        self._filled: set[str] = set()
        self._fenced: dict[str, ResumableWorkflowStore] = {}

    async def start(self, run: str) -> None:
        await self._store.create_run(
            WorkflowExecutionState(
                run_task_id=run, agent_id="agent", thread_id="thread", user_id="user", definition={}
            )
        )
        claim = await self._store.claim_run(run, owner="benchmark", lease_s=LEASE_S)
        self._fenced[run] = self._store.fenced(claim)

    async def write(self, run: str, step: str, value: Json) -> None:
        await self._store.upsert_step(run, _completed(step, value))

    async def read(self, run: str) -> int:
        return len((await self._store.load_run(run)).steps)

    async def context(self, run: str, step: str, value: Json) -> None:
        await self._store.update_context(run, value)

    async def commit(self, run: str, step: str, value: Json) -> None:
        await self._store.commit_step(run, _completed(step, value), value)

    async def fenced(self, run: str, step: str, value: Json) -> None:
        await self._fenced[run].upsert_step(run, _completed(step, value))

    async def get(self, run: str, step: str, value: Json) -> None:
        if run not in self._filled:
            self._filled.add(run)
            for number in range(FILLED):
                await self.write(run, f"filled-{number}", Values(1_000, distinct=1).next())
        await self._store.get_step(run, f"filled-{int(step[5:]) % FILLED}")

    async def close(self) -> None:
        await self._store.close()


class OursSqliteNormal(OursSqliteFull):
    name = "workflow-store, SQLite NORMAL"
    survives = CRASH
    synchronous = "NORMAL"


class OursPostgresql(OursSqliteFull):
    name = "workflow-store, PostgreSQL"
    database = "PostgreSQL"

    async def _open(self, servers: Servers) -> Any:
        return open_store(await servers.postgres_database("ours", our_tables=True))


def _completed(step: str, value: Json) -> WorkflowStepState:
    now = datetime.now(UTC)
    return WorkflowStepState(
        step_id=step, status=TaskStatus.COMPLETED, result=value, started_at=now, completed_at=now
    )
