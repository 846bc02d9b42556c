"""A store in the memory of the process: the twin that answers like the others."""

from __future__ import annotations

from datetime import UTC, datetime

from . import json_codec
from .checks import checked_identifier, checked_run, checked_step
from .errors import RunNotFoundError, StoreClosedError
from .state import (
    JsonValue,
    WorkflowExecutionState,
    WorkflowStepState,
)
from .store import RunSnapshot, WorkflowStore

__all__ = ["InMemoryWorkflowStore"]


class InMemoryWorkflowStore(WorkflowStore):
    """Keeps runs in process memory: for tests, and for runs that may be lost.

    It is empty when it is opened and when it was closed. States are kept as the text of
    their wire form, so that the store and its callers never share an object. No method
    awaits anything, which makes each of them atomic.
    """

    def __init__(self) -> None:
        self._runs: dict[str, str] = {}
        self._steps: dict[str, dict[str, str]] = {}
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._runs.clear()
        self._steps.clear()

    async def create_run(self, state: WorkflowExecutionState) -> None:
        self._check_open()
        run = checked_run(state)
        text = run.model_dump_json()
        self._runs[run.run_task_id] = text
        self._steps.setdefault(run.run_task_id, {})

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        self._check_open()
        text = self._runs.get(checked_identifier(run_task_id, name="run_task_id"))
        return None if text is None else WorkflowExecutionState.model_validate_json(text)

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        self._check_open()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        # The context is checked before the run is looked up, as a database's driver has it.
        json_codec.encode(context, field="context")
        run = await self.get_run(run_task_id)
        if run is None:
            raise RunNotFoundError(run_task_id)
        run.context = context
        run.updated_at = datetime.now(UTC)
        self._runs[run_task_id] = run.model_dump_json()

    async def delete_run(self, run_task_id: str) -> None:
        self._check_open()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        self._runs.pop(run_task_id, None)
        self._steps.pop(run_task_id, None)

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        self._check_open()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        step = checked_step(step)
        text = step.model_dump_json()
        if run_task_id not in self._runs:
            raise RunNotFoundError(run_task_id)
        self._steps[run_task_id][step.step_id] = text  # a dict's key keeps its first place

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        self._check_open()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        step_id = checked_identifier(step_id, name="step_id")
        text = self._steps.get(run_task_id, {}).get(step_id)
        return None if text is None else WorkflowStepState.model_validate_json(text)

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        self._check_open()
        run_task_id = checked_identifier(run_task_id, name="run_task_id")
        texts = self._steps.get(run_task_id, {}).values()
        return [WorkflowStepState.model_validate_json(text) for text in texts]

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        """Give a run and its steps as they are at one moment, None where there is no run."""
        run = await self.get_run(run_task_id)
        return None if run is None else RunSnapshot(run, await self.list_steps(run_task_id))

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreClosedError(
                "The store is not open: use it inside 'async with store:', or await "
                "store.open() first."
            )
