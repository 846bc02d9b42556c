"""Keeps the state of workflow runs in SQL, so that a run survives a crash.

`open_store` returns the store for a URL. A store records which runs were started, with which
definition, input and shared context, and how far each step got. It never runs a step.
"""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# The modules of the public names, the quickest to import first. They are imported on first use, so
# that `workflow-store --help` need not import SQLAlchemy: https://peps.python.org/pep-0562/
_MODULES = (".errors", ".state", ".store", ".memory", ".factory", ".sql.dialects", ".sql.store")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            namespace = vars(import_module(module, __name__))
            if name in namespace:
                return globals().setdefault(name, namespace[name])
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):  # such as `errors`
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Without a handler, Python prints warnings to stderr:
# https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library
logging.getLogger(__name__).addHandler(logging.NullHandler())
