"""The seven methods for tests: a call of each, and the ids of steps in their order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..store import WorkflowStore
from .samples import a_run, a_step

__all__ = ["CALLS", "step_ids"]

CALLS: dict[str, Callable[[WorkflowStore, Any], Awaitable[Any]]] = {
    "create_run": lambda store, _: store.create_run(a_run()),
    "get_run": lambda store, run: store.get_run(run),
    "update_context": lambda store, run: store.update_context(run, {}),
    "delete_run": lambda store, run: store.delete_run(run),
    "upsert_step": lambda store, run: store.upsert_step(run, a_step()),
    "get_step": lambda store, run: store.get_step(run, "step"),
    "get_step by step": lambda store, step: store.get_step("run", step),
    "list_steps": lambda store, run: store.list_steps(run),
}
"""Each method, called with one identifier."""


async def step_ids(store: WorkflowStore, run_task_id: str = "run") -> list[str]:
    return [step.step_id for step in await store.list_steps(run_task_id)]
