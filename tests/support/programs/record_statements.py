"""Print the statements of this version as JSON, for `tests/previous/<its revision>.json`.

`python -m tests.programs.record_statements`, run before a new revision is added. A later
version runs them on its own schema: processes of this version go on through its deploy.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as aiosqlite

from workflow_store.sql import columns
from workflow_store.sql.dialects import POSTGRESQL, SQLITE
from workflow_store.sql.queries.compiler import Read, Write
from workflow_store.sql.queries.statements import Statements

WRITES = {
    "create_run": columns.RUN,
    "update_context": columns.CONTEXT,
    "upsert_step": columns.STEP,
    "delete_run": columns.KEY,
    "commit_step": columns.COMMIT,
}
OTHERS = {
    "get_run": columns.KEY,
    "get_step": columns.STEP_KEY,
    "list_steps": columns.KEY,
    "load_run": columns.KEY,
    "find_waiting_step": columns.WAITING,
    "get_claim": [columns.CLAIMS.c.run_task_id, columns.CLAIMS.c.token],
    "renew_claim": columns.RENEWAL,
    "renew_locked_claim": columns.RENEWAL,
}


def every(statements: Statements) -> dict[str, tuple[Read | Write, list[Column[Any]]]]:
    """Return the statements of the hot path, with the columns of their parameters."""
    return {
        **{name: (getattr(statements.writes, name), given) for name, given in WRITES.items()},
        **{
            f"fenced {name}": (getattr(statements.fenced, name), [*given, *columns.FENCE])
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
            many = read_or_write.many
            parts = {name: read_or_write.one, f"{name}, many": () if many is None else (many,)}
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
