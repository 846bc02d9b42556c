"""A tiny runtime: drives the steps of a workflow and keeps their state in a store.

A definition has `steps`, each with an `id` and the earlier steps that it `depends_on`. A step has
either a function to `run` and its arguments in `with`, or a question to `ask` an outside party.
Steps that do not depend on each other run concurrently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from workflow_store import JsonValue, RunNotFoundError, TaskStatus, WorkflowStepState, WorkflowStore

AT_ONCE = 3
POLL_S = 0.02

Step = dict[str, Any]
"""A step of the definition."""


class Runtime:
    """Drives one run. Starting it and resuming it after a crash are the same call.

    Args:
        store: the store of the run.
        run_task_id: the run, which exists.
        functions: the functions that a step can `run`, by name. Each takes the results of the
            steps on which its step depends, and returns a JSON value.
        on_start: called with the id of every step that is started.
    """

    def __init__(
        self,
        store: WorkflowStore,
        run_task_id: str,
        functions: Mapping[str, Callable[..., JsonValue]],
        on_start: Callable[[str], None],
    ) -> None:
        self._store = store
        self._run_task_id = run_task_id
        self._functions = functions
        self._on_start = on_start
        self._context: dict[str, JsonValue] = {}
        self._sharing = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def drive(self) -> None:
        """Do every step that is not completed. Only one process at a time may drive a run."""
        run = await self._store.get_run(self._run_task_id)
        if run is None:
            raise RunNotFoundError(self._run_task_id)
        steps: list[Step] = run.definition["steps"]
        await self._take_up(steps)

        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            for step in steps:
                if step["id"] not in self._context:
                    before = [tasks[name] for name in step.get("depends_on", []) if name in tasks]
                    tasks[step["id"]] = group.create_task(self._do(step, before))

    async def _take_up(self, steps: list[Step]) -> None:
        """Insert the missing steps, and rebuild the context from the results.

        A step's result and the context are two writes, and a crash may come between them. So the
        results are authoritative, and the context is a copy for readers of the run.
        """
        stored = {state.step_id: state for state in await self._store.list_steps(self._run_task_id)}
        for step in steps:
            if step["id"] not in stored:
                await self._save(WorkflowStepState(step_id=step["id"]))
        for name, state in stored.items():
            if state.status is TaskStatus.COMPLETED:
                self._context[name] = state.result
        await self._store.update_context(self._run_task_id, self._context)

    async def _do(self, step: Step, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)  # if one fails, the group cancels this task
        result = await (self._ask(step) if "ask" in step else self._run(step))
        async with self._sharing:  # else the older of two writes might come last
            self._context[step["id"]] = result
            await self._store.update_context(self._run_task_id, self._context)

    async def _run(self, step: Step) -> JsonValue:
        inputs = {name: self._context[name] for name in step.get("depends_on", [])}
        function = self._functions[step["run"]]
        async with self._slots:
            state = WorkflowStepState(
                step_id=step["id"], status=TaskStatus.RUNNING, started_at=datetime.now(UTC)
            )
            await self._save(state)
            self._on_start(step["id"])
            try:
                result = await asyncio.to_thread(function, inputs, **step.get("with", {}))
            except Exception as error:
                await self._end(state, status=TaskStatus.FAILED, error=repr(error))
                raise
            await self._end(state, status=TaskStatus.COMPLETED, result=result)
            return result

    async def _end(self, state: WorkflowStepState, **fields: JsonValue) -> None:
        await self._save(state.model_copy(update={"completed_at": datetime.now(UTC), **fields}))

    async def _ask(self, step: Step) -> JsonValue:
        """Wait until an outside party completes the step, and return its result."""
        self._on_start(step["id"])
        state = await self._stored(step)
        if state.status is TaskStatus.PENDING:  # else asked before a crash
            state.status = TaskStatus.INPUT_REQUIRED
            state.started_at = datetime.now(UTC)
            state.wait_task_id = str(uuid4())
            await self._save(state)
        while not state.status.is_terminal:
            await asyncio.sleep(POLL_S)
            state = await self._stored(step)
        if state.status is not TaskStatus.COMPLETED:
            raise RuntimeError(f"step {state.step_id} was not answered: it is {state.status}")
        return state.result

    async def _stored(self, step: Step) -> WorkflowStepState:
        state = await self._store.get_step(self._run_task_id, step["id"])
        if state is None:
            raise RunNotFoundError(self._run_task_id)
        return state

    async def _save(self, state: WorkflowStepState) -> None:
        await self._store.upsert_step(self._run_task_id, state)
