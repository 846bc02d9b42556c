"""Print the statements of this version as JSON.

`python -m tests.support.programs.record_statements > tests/migrations/previous/<revision>.json`,
run before a new revision is added. A later version runs them on its own schema, since processes
of this version continue through its deploy.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as aiosqlite

from workflow_store.sql import models
from workflow_store.sql.dialects import POSTGRESQL, SQLITE
from workflow_store.sql.queries.compiler import Read, Write
from workflow_store.sql.queries.statements import Statements

WRITES = {
    "create_run": models.RUN_COLUMNS,
    "update_context": models.CONTEXT_COLUMNS,
    "upsert_step": models.STEP_COLUMNS,
    "delete_run": models.RUN_KEY,
    "commit_step": models.COMMIT_COLUMNS,
}
OTHERS = {
    "get_run": models.RUN_KEY,
    "get_step": models.STEP_KEY,
    "list_steps": models.RUN_KEY,
    "load_run": models.RUN_KEY,
    "find_waiting_step": models.WAITING_COLUMNS,
    "get_claim": [models.CLAIMS.c.run_task_id, models.CLAIMS.c.token],
    "renew_claim": models.RENEWAL_COLUMNS,
    "renew_locked_claim": models.RENEWAL_COLUMNS,
}


def every(statements: Statements) -> dict[str, tuple[Read | Write, list[Column[Any]]]]:
    """Return the statements of the hot path, with the columns of their parameters."""
    return {
        **{name: (getattr(statements.writes, name), given) for name, given in WRITES.items()},
        **{
            f"fenced {name}": (getattr(statements.fenced, name), [*given, *models.FENCE_COLUMNS])
            for name, given in WRITES.items()
        },
        **{name: (getattr(statements, name), given) for name, given in OTHERS.items()},
    }


def recorded(statements: Statements) -> dict[str, list[Any]]:
    """Return the text of each statement, with its parameter names in the driver's order."""
    found: dict[str, list[Any]] = {}
    for name, (read_or_write, given) in every(statements).items():
        parts: dict[str, Read]
        if isinstance(read_or_write, Write):
            many = read_or_write.batched
            parts = {name: read_or_write.single, f"{name}, many": () if many is None else (many,)}
        else:
            parts = {name: read_or_write}
        names = [column.name for column in given]
        for part, texts in parts.items():
            if texts:
                found[part] = [[text.sql, list(text.arguments(names))] for text in texts]
    return found


def present() -> dict[str, Statements]:
    """Return the statements of this version for each database."""
    return {
        "sqlite": Statements(SQLITE, aiosqlite(), None),
        "postgresql": Statements(POSTGRESQL, asyncpg(), None),  # type: ignore[no-untyped-call]
    }


if __name__ == "__main__":
    print(json.dumps({name: recorded(each) for name, each in present().items()}, indent=1))
