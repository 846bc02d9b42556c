"""SQL of the raw subjects: the store's upsert and reads, written by hand for a driver."""

from __future__ import annotations

RUN_COLUMNS = (
    "run_task_id, agent_id, thread_id, user_id, workspace_id, definition, input, context, "
    "created_at, updated_at"
)
STEP_COLUMNS = "run_task_id, step_id, status, result, error, started_at, completed_at, wait_task_id"

_REPLACE = (
    "ON CONFLICT (run_task_id, step_id) DO UPDATE SET status = excluded.status, "
    "result = excluded.result, error = excluded.error, started_at = excluded.started_at, "
    "completed_at = excluded.completed_at, wait_task_id = excluded.wait_task_id"
)

SQLITE_UPSERT = (
    f"INSERT INTO steps ({STEP_COLUMNS}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 "  # noqa: S608 - constants
    f"WHERE EXISTS (SELECT 1 FROM runs WHERE run_task_id = ?1) {_REPLACE}"
)

POSTGRESQL_UPSERT = (
    f"INSERT INTO steps ({STEP_COLUMNS}) SELECT $1::text, $2::text, $3::text, $4::text::json, "  # noqa: S608 - constants
    "$5::text::json, $6::timestamptz, $7::timestamptz, $8::text "
    f"WHERE EXISTS (SELECT 1 FROM runs WHERE run_task_id = $1::text) {_REPLACE}"
)

SQLITE_RUN = (
    f"INSERT INTO runs ({RUN_COLUMNS}) "  # noqa: S608 - constants
    "VALUES (?1, 'agent', 'thread', 'user', NULL, '{}', '{}', '{}', ?2, ?2)"
)
POSTGRESQL_RUN = SQLITE_RUN.replace("?", "$")

SQLITE_READ_RUN = (
    "SELECT run_task_id, agent_id, thread_id, user_id, workspace_id, entry_point, definition, "
    "input, context, created_at, updated_at FROM runs WHERE run_task_id = ?"
)

SQLITE_READ_STEPS = (
    "SELECT step_id, status, result, error, started_at, completed_at, wait_task_id "
    "FROM steps WHERE run_task_id = ? ORDER BY seq"
)

POSTGRESQL_READ_RUN = SQLITE_READ_RUN.replace("?", "$1")
POSTGRESQL_READ_STEPS = SQLITE_READ_STEPS.replace("?", "$1")
