"""The methods that read and write one run, on whatever is open."""

from __future__ import annotations

from abc import abstractmethod

from ..errors import RunNotFoundError
from ..state import JsonValue, WorkflowExecutionState, WorkflowStepState
from ..store import RunSnapshot, WorkflowStore
from ..validation import validated_identifier
from . import rows
from .database import Executor

__all__ = ["StoreMethods"]


class StoreMethods(WorkflowStore):
    """The seven methods, and the two that read and write a run and its steps together."""

    @abstractmethod
    def _opened(self) -> Executor:
        """Give what to work on.

        Raises:
            StoreClosedError: the store is not open.
        """

    # -- runs ---------------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        session = self._opened()
        await session.write(session.writes.create_run, rows.run_row, state)

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        session = self._opened()
        key = (validated_identifier(run_task_id, name="run_task_id"),)
        found = await session.read(session.statements.get_run, key)
        return rows.run_from_row(found[0], session.dialect) if found else None

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        session = self._opened()
        write = session.writes.update_context
        if not await session.write(write, rows.context_row, run_task_id, context):
            raise RunNotFoundError(run_task_id)

    async def delete_run(self, run_task_id: str) -> None:
        session = self._opened()
        await session.write(session.writes.delete_run, rows.run_key, run_task_id)

    # -- steps --------------------------------------------------------------------------

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        session = self._opened()
        if not await session.write(session.writes.upsert_step, rows.step_row, run_task_id, step):
            raise RunNotFoundError(run_task_id)

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        session = self._opened()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        key = (run_task_id, validated_identifier(step_id, name="step_id"))
        found = await session.read(session.statements.get_step, key)
        return rows.step_from_row(run_task_id, found[0], session.dialect) if found else None

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        session = self._opened()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        found = await session.read(session.statements.list_steps, (run_task_id,))
        return await rows.steps_from_rows(run_task_id, found, session.dialect)

    # -- both ---------------------------------------------------------------------------

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """Give a run and its steps as they are at one moment, None where there is no run."""
        session = self._opened()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        found = await session.read(session.statements.load_run, (run_task_id,))
        if not found or found[0][-3] != 0:
            return None
        run, *steps = found
        return RunSnapshot(
            rows.run_from_row(run, session.dialect),
            await rows.steps_from_rows(run_task_id, steps, session.dialect),
        )

    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        """Do `upsert_step` and `update_context` in one transaction."""
        session = self._opened()
        write = session.writes.commit_step
        if not await session.write(write, rows.commit_row, run_task_id, step, context):
            raise RunNotFoundError(run_task_id)
