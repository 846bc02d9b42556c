"""What the package shows of itself."""

from __future__ import annotations

import importlib.metadata
import pickle
import subprocess
import sys
from typing import Any

import pytest

import workflow_store
from workflow_store import InMemoryWorkflowStore, SqlWorkflowStore, errors, open_store

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
    assert workflow_store.__version__ == importlib.metadata.version("workflow-store")


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
        errors.SchemaMismatchError("message", found="ws_0001", expected="ws_0002"),
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


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "postgresql://host/db"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 0}, "pool_size=0 must be greater than 0"),
        ({"pool_size": True}, "pool_size=True must be a valid integer"),
        ({"pool_size": "5"}, "pool_size='5' must be a valid integer"),
        ({"busy_timeout_s": -0.5}, "busy_timeout_s=-0.5 must be greater than 0"),
        ({"pool_timeout_s": float("nan")}, "pool_timeout_s=nan must be greater than 0"),
        ({"statement_timeout_s": None}, "statement_timeout_s=None must be a valid number"),
        ({"synchronous": "OFF"}, "synchronous='OFF' must be 'FULL' or 'NORMAL'"),
        ({"transaction_pooler": 1}, "transaction_pooler=1 must be a valid boolean"),
        ({"pool_sise": 5}, "unknown option 'pool_sise'; supported options: pool_size, "
         "pool_timeout_s, synchronous, busy_timeout_s, connect_timeout_s, statement_timeout_s, "
         "transaction_pooler"),
    ],
)  # fmt: skip
def test_a_bad_option_is_an_error_that_names_it_and_its_range(
    url: str, options: dict[str, Any], message: str
) -> None:
    """For every URL, also where the option would have no effect."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared as a whole
        open_store(url, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [InMemoryWorkflowStore, lambda: SqlWorkflowStore("sqlite://")])
async def test_an_unknown_filter_of_a_listing_is_a_type_error(kind: Any) -> None:
    """A typo is an error, not a filter without effect."""
    async with kind() as store:
        with pytest.raises(TypeError, match="agent_ids"):
            await store.list_runs(agent_ids="a")


def test_modules_are_attributes_of_the_package() -> None:
    """As if importing the package imported them."""
    code = (
        "import workflow_store; "
        "print(workflow_store.errors.StoreClosedError.__name__, "
        "workflow_store.sql.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["StoreClosedError", "workflow_store.sql"]
