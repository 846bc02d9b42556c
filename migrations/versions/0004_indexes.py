"""Indexes for listing runs, for finding the step that waits, and for cleaning up.

On PostgreSQL they are built beside the running writers, outside of a transaction. A build
that was interrupted may leave an index that is not valid; running the upgrade again drops
and builds it anew.

There, `runs` also leaves room in each page, from now on, for the next version of its rows: an
update of a context that finds room writes to none of the indexes.

Revision ID: 0004
Revises: 0003
Created: 2026-11-23
"""

import contextlib

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# name, table, columns, rows
INDEXES = [
    ("ix_runs_created_at_run_task_id", "runs", ["created_at", "run_task_id"], None),
    ("ix_runs_agent_id_created_at_run_task_id", "runs",
     ["agent_id", "created_at", "run_task_id"], None),
    ("ix_runs_thread_id_created_at_run_task_id", "runs",
     ["thread_id", "created_at", "run_task_id"], None),
    ("ix_runs_user_id_created_at_run_task_id", "runs",
     ["user_id", "created_at", "run_task_id"], None),
    ("ix_runs_workspace_id_created_at_run_task_id", "runs",
     ["workspace_id", "created_at", "run_task_id"], "workspace_id IS NOT NULL"),
    ("ix_steps_status_run_task_id", "steps", ["status", "run_task_id"], "status <> 'completed'"),
    ("ix_steps_wait_task_id", "steps", ["wait_task_id"], "wait_task_id IS NOT NULL"),
]  # fmt: skip


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    set_storage("SET (fillfactor = 80)")
    with beside_writers() as concurrently:
        for name, table, columns, rows in INDEXES:
            where = None if rows is None else sa.text(rows)
            op.drop_index(
                name, table, schema=schema, if_exists=True, postgresql_concurrently=concurrently
            )
            op.create_index(
                name,
                table,
                columns,
                schema=schema,
                postgresql_where=where,
                sqlite_where=where,
                postgresql_concurrently=concurrently,
            )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    set_storage("RESET (fillfactor)")
    with beside_writers() as concurrently:
        for name, table, *_ in reversed(INDEXES):
            op.drop_index(
                name, table, schema=schema, if_exists=True, postgresql_concurrently=concurrently
            )


def set_storage(change: str) -> None:
    context = op.get_context()
    if context.dialect.name == "postgresql":
        runs = sa.table("runs", schema=context.version_table_schema)
        name = context.dialect.identifier_preparer.format_table(runs)
        op.execute(sa.text(f"ALTER TABLE {name} {change}".replace(":", r"\:")))


@contextlib.contextmanager
def beside_writers():
    """Leave the transaction on PostgreSQL; SQLite, with its one writer, has no such builds."""
    context = op.get_context()
    if context.dialect.name == "postgresql":
        with context.autocommit_block():
            yield True
    else:
        yield False
