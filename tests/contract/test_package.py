"""What the package shows of itself."""

from __future__ import annotations

import importlib.metadata
import pickle
import subprocess
import sys

import pytest

import workflow_store
from workflow_store import errors

CONTRACT_NAMES = {
    "InMemoryWorkflowStore", "InvalidStateError", "RunNotFoundError", "SchemaMismatchError",
    "SqlWorkflowStore", "StoreClosedError", "StoreUnavailableError", "TaskStatus",
    "WorkflowExecutionState", "WorkflowStepState", "WorkflowStore", "WorkflowStoreError",
    "open_store",
}  # fmt: skip


def test_every_name_of_the_contract_can_be_imported() -> None:
    """And every public name is documented and can be found."""
    assert set(workflow_store.__all__) >= CONTRACT_NAMES
    for name in workflow_store.__all__:
        assert getattr(workflow_store, name, None) is not None or name == "JsonValue"


def test_the_version_is_that_of_the_distribution() -> None:
    """One home for the number."""
    assert importlib.metadata.version("workflow-store") == "0.1.0"


def test_importing_loads_no_driver_no_alembic_and_no_command_line() -> None:
    """They are loaded when they are needed."""
    program = "import sys, workflow_store; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "workflow_store" in loaded
    for name in ("aiosqlite", "asyncpg", "alembic", "mako", "typer", "click", "rich", "pytest"):
        assert name not in loaded
    assert "sqlalchemy" not in loaded
    assert "pydantic" not in loaded


@pytest.mark.parametrize(
    "error",
    [
        errors.WorkflowStoreError("message"),
        errors.InvalidStateError("message"),
        errors.RunNotFoundError("run"),
        errors.SchemaMismatchError("message", found="0001", expected="0002"),
        errors.StoreUnavailableError("message"),
        errors.StoreClosedError("message"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_to_another_process(error: Exception) -> None:
    """With its message and its attributes."""
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
    assert isinstance(copied, errors.WorkflowStoreError)


def test_errors_are_also_what_python_calls_them() -> None:
    """So that code that knows nothing of the package may catch them."""
    assert issubclass(errors.InvalidStateError, ValueError)
    assert issubclass(errors.RunNotFoundError, LookupError)
    assert errors.RunNotFoundError("x").run_task_id == "x"
