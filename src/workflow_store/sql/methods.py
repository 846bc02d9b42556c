"""The methods of a store: validate, read or write, decode."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from datetime import datetime
from functools import partial
from typing import Unpack

from ..errors import RunNotFoundError, StoreClosedError
from ..formatting import counted
from ..pagination import PageRequest, Position, RunFilters
from ..state import TERMINAL, JsonValue, WorkflowExecutionState, WorkflowStepState
from ..store import (
    ResumableWorkflowStore,
    RunClaim,
    RunPage,
    RunSnapshot,
    WaitingStep,
    WorkflowStore,
)
from ..validation import (
    MAX_BATCH,
    MAX_LIMIT,
    check_event_loop,
    validated_claim,
    validated_flag,
    validated_identifier,
    validated_lease,
    validated_number,
    validated_time,
)
from . import rows
from .database import Database
from .executor import Executor
from .queries import claims
from .queries.listing import list_runs
from .queries.purge import purge_batch

__all__ = ["ResumableMethods", "StoreMethods"]

_LOG = logging.getLogger("workflow_store.store")
_LOG_CLAIMS = logging.getLogger("workflow_store.claims")

_PAUSE_S = 0.01
"""Between two batches of a purge, so that waiting writers get their turn."""


class StoreMethods(WorkflowStore):
    """The methods that read and write one run, on any executor."""

    @property
    @abstractmethod
    def _executor(self) -> Executor: ...

    # -- runs ---------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        executor = self._executor
        await executor.write(executor.writes.create_run, rows.run_row, state)

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        executor = self._executor
        key = (validated_identifier(run_task_id, name="run_task_id"),)
        run_rows = await executor.read(executor.statements.get_run, key)
        return rows.run_from_row(run_rows[0], executor.dialect) if run_rows else None

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        executor = self._executor
        write = executor.writes.update_context
        if not await executor.write(write, rows.context_row, run_task_id, context):
            raise RunNotFoundError(run_task_id)

    async def delete_run(self, run_task_id: str) -> None:
        executor = self._executor
        await executor.write(executor.writes.delete_run, rows.run_key, run_task_id)

    # -- steps --------------------------------------------------------------------------

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        executor = self._executor
        if not await executor.write(executor.writes.upsert_step, rows.step_row, run_task_id, step):
            raise RunNotFoundError(run_task_id)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        executor = self._executor
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        key = (run_task_id, validated_identifier(step_id, name="step_id"))
        step_rows = await executor.read(executor.statements.get_step, key)
        if not step_rows:
            return None
        return rows.step_from_row(run_task_id, step_rows[0], executor.dialect)

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        executor = self._executor
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        step_rows = await executor.read(executor.statements.list_steps, (run_task_id,))
        return await rows.steps_from_rows(run_task_id, step_rows, executor.dialect)

    # -- both ---------------------------------------------------------------------------

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """See `ResumableWorkflowStore.load_run`."""
        executor = self._executor
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        snapshot_rows = await executor.read(executor.statements.load_run, (run_task_id,))
        return await rows.snapshot_from_rows(run_task_id, snapshot_rows, executor.dialect)

    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        """See `ResumableWorkflowStore.commit_step`."""
        executor = self._executor
        write = executor.writes.commit_step
        if not await executor.write(write, rows.commit_row, run_task_id, step, context):
            raise RunNotFoundError(run_task_id)


class ResumableMethods(StoreMethods, ResumableWorkflowStore):
    """The methods on many runs, and the claims."""

    _open_database: Database | None = None

    @property
    def _database(self) -> Database:
        """The open database.

        Raises:
            StoreClosedError: the store is not open.
            WorkflowStoreError: it was opened in another event loop.
        """
        database = self._open_database
        if database is None:
            raise StoreClosedError
        check_event_loop(database.loop)
        return database

    @property
    def _executor(self) -> Executor:
        return self._database

    # -- look ---------------------------------------------------------------------------

    async def list_runs(self, **filters: Unpack[RunFilters]) -> RunPage:
        database = self._database
        request = PageRequest.validate(**filters)
        return await database.transaction(
            lambda connection: list_runs(connection, request), "a page of runs", writes=False
        )

    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        database = self._database
        wait_task_id = validated_identifier(wait_task_id, name="wait_task_id")
        waiting_rows = await database.read(
            database.statements.find_waiting_step, (wait_task_id, *TERMINAL), subject="waiting step"
        )
        if not waiting_rows:
            return None
        run_task_id, *step = waiting_rows[0]
        return WaitingStep(run_task_id, rows.step_from_row(run_task_id, step, database.dialect))

    # -- clean up -----------------------------------------------------------------------

    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        dialect = self._database.dialect
        created_before = validated_time(created_before, name="created_before")
        only_terminal = validated_flag(only_terminal, name="only_terminal")
        batch_size = validated_number(batch_size, name="batch_size", most=MAX_BATCH)
        count = 0
        position: Position | None = None
        try:
            while True:
                batch = partial(
                    purge_batch,
                    dialect=dialect,
                    created_before=created_before,
                    only_terminal=only_terminal,
                    batch_size=batch_size,
                    after=position,
                )
                purged = await self._database.transaction(batch, "a purge")
                count += purged.runs
                position = purged.last
                if position is None:
                    return count
                await asyncio.sleep(_PAUSE_S)
        finally:  # an interrupted purge raises an error, and only the log has its progress
            _LOG.info(
                "a purge deleted %s created before %s",
                counted(count, "run"),
                created_before.isoformat(),
            )

    # -- share --------------------------------------------------------------------------

    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        database = self._database
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        return await database.transaction(
            lambda connection: claims.claim_run(
                connection, database.dialect, run_task_id, owner, lease_s
            ),
            f"run {run_task_id!r}",
            runs=[run_task_id],
        )

    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        database = self._database
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        limit = validated_number(limit, name="limit", most=MAX_LIMIT)
        claimed = await database.transaction(
            lambda connection: claims.claim_abandoned_runs(
                connection, database.dialect, owner, lease_s, limit
            ),
            "abandoned runs",
        )
        for claim in claimed:
            _LOG_CLAIMS.info("%r took over abandoned run %r", owner, claim.run_task_id)
        return claimed

    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        database = self._database
        claim = validated_claim(claim)
        statements = database.statements
        renewed = await database.write(
            statements.renew_claim, rows.renewal_row, claim
        ) or await database.write(statements.renew_locked_claim, rows.renewal_row, claim)
        if not renewed:
            claims.raise_claim_lost(claim)
        return claim._replace(expires_at=database.dialect.decode_datetime(renewed[-1]))

    async def release_claim(self, claim: RunClaim) -> None:
        database = self._database
        claim = validated_claim(claim)
        await database.transaction(
            lambda connection: claims.release_claim(connection, claim),
            f"run {claim.run_task_id!r}",
            runs=[claim.run_task_id],
        )
