"""Print the statements of this version as JSON, for `tests/previous/<its revision>.json`.

`python -m tests.programs.record_statements`, run before a new revision is added. A later
version runs them on its own schema: processes of this version go on through its deploy.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as aiosqlite

from workflow_store.sql import columns
from workflow_store.sql.compiling import Statement
from workflow_store.sql.dialects import POSTGRESQL, SQLITE
from workflow_store.sql.statements import Statements

COLUMNS = {
    "create_run": columns.RUN,
    "update_context": columns.CONTEXT,
    "upsert_step": columns.STEP,
    "delete_run": columns.KEY,
    "get_run": columns.KEY,
    "get_step": columns.STEP_KEY,
    "list_steps": columns.KEY,
    "load_run": columns.KEY,
}


def recorded(of: Statements) -> dict[str, Any]:
    """Give each statement's text with the names of its parameters, in the driver's order."""
    found: dict[str, Any] = {}
    for name, given in COLUMNS.items():
        names = [column.name for column in given]

        def text(statement: Statement, names: list[str] = names) -> list[Any]:
            return [statement.sql, list(statement.arguments(names))]

        statement: Any = getattr(of, name, None) or getattr(of.writes, name)
        one = getattr(statement, "one", statement)
        found[name] = [text(each) for each in (one if isinstance(one, tuple) else (one,))]
        if getattr(statement, "many", None) is not None:
            found[f"{name}, many"] = [text(statement.many)]
    return found


if __name__ == "__main__":
    texts = {
        "sqlite": recorded(Statements(SQLITE, aiosqlite(), None)),
        "postgresql": recorded(Statements(POSTGRESQL, asyncpg(), None)),  # type: ignore[no-untyped-call]
    }
    print(json.dumps(texts, indent=1))
