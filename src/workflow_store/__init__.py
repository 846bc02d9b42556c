"""Keeps the state of workflow runs in SQL, so that a run survives a crash.

`open_store` gives a `WorkflowStore` for a URL. The store keeps which runs were started,
with which definition, input and shared context, and how far each step got. It never runs
a step.
"""

from .errors import (
    InvalidStateError,
    RunNotFoundError,
    SchemaMismatchError,
    StoreClosedError,
    StoreUnavailableError,
    WorkflowStoreError,
)
from .memory import InMemoryWorkflowStore
from .opening import open_store
from .sql.dialects import EngineOptions
from .sql.store import SqlWorkflowStore
from .state import JsonValue, TaskStatus, WorkflowExecutionState, WorkflowStepState
from .store import RunSnapshot, WorkflowStore

__all__ = [
    "EngineOptions",
    "InMemoryWorkflowStore",
    "InvalidStateError",
    "JsonValue",
    "RunNotFoundError",
    "RunSnapshot",
    "SchemaMismatchError",
    "SqlWorkflowStore",
    "StoreClosedError",
    "StoreUnavailableError",
    "TaskStatus",
    "WorkflowExecutionState",
    "WorkflowStepState",
    "WorkflowStore",
    "WorkflowStoreError",
    "open_store",
]
