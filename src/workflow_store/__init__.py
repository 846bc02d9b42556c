"""Keeps the state of workflow runs in SQL, so that a run survives a crash.

`open_store` gives a `WorkflowStore` for a URL. The store keeps which runs were started,
with which definition, input and shared context, and how far each step got. It never runs
a step.
"""

import logging

from .errors import (
    ClaimLostError,
    InvalidStateError,
    RunNotFoundError,
    SchemaMismatchError,
    StoreClosedError,
    StoreUnavailableError,
    WorkflowStoreError,
)
from .factory import open_store
from .memory import InMemoryWorkflowStore
from .sql.dialects import EngineOptions
from .sql.store import SqlWorkflowStore
from .state import JsonValue, RunSummary, TaskStatus, WorkflowExecutionState, WorkflowStepState
from .store import (
    ResumableWorkflowStore,
    RunClaim,
    RunPage,
    RunSnapshot,
    WaitingStep,
    WorkflowStore,
)

__all__ = [
    "ClaimLostError",
    "EngineOptions",
    "InMemoryWorkflowStore",
    "InvalidStateError",
    "JsonValue",
    "ResumableWorkflowStore",
    "RunClaim",
    "RunNotFoundError",
    "RunPage",
    "RunSnapshot",
    "RunSummary",
    "SchemaMismatchError",
    "SqlWorkflowStore",
    "StoreClosedError",
    "StoreUnavailableError",
    "TaskStatus",
    "WaitingStep",
    "WorkflowExecutionState",
    "WorkflowStepState",
    "WorkflowStore",
    "WorkflowStoreError",
    "open_store",
]

__version__ = "0.1.0"

# What is said and nobody listens to is not written to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
