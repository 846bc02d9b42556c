"""Create the tables runs, steps and claims, and their indexes.

This revision is edited in place until the first release; after that, it never changes.

On PostgreSQL, large JSON values are compressed with lz4 if the server was built with it, which
is faster than the default, pglz. `runs` leaves room in each page for the next version of a row,
so that an update of a context changes no index:
https://www.postgresql.org/docs/current/storage-hot.html

Revision ID: ws_0001
Revises:
Created: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "ws_0001"
down_revision = None
branch_labels = ("workflow_store",)
depends_on = None

# Byte order whatever the server's locale is; SQLite's default.
IDENTIFIER = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
# The text as it was written; see workflow_store.sql.dialects.JsonText.
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
TIME = sa.DateTime(timezone=True)
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# name, table, columns, condition
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
    ("ix_claims_expires_at", "claims", ["expires_at"], None),
]  # fmt: skip


def upgrade() -> None:
    context = op.get_context()
    schema = context.version_table_schema
    runs = op.create_table(
        "runs",
        sa.Column("run_task_id", IDENTIFIER, nullable=False),
        sa.Column("agent_id", IDENTIFIER, nullable=False),
        sa.Column("thread_id", IDENTIFIER, nullable=False),
        sa.Column("user_id", IDENTIFIER, nullable=False),
        sa.Column("workspace_id", IDENTIFIER, nullable=True),
        sa.Column("entry_point", IDENTIFIER, nullable=True),
        sa.Column("definition", JSON, nullable=False),
        sa.Column("input", JSON, nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("run_task_id", name="pk_runs"),
        schema=schema,
    )
    op.create_table(
        "steps",
        sa.Column("seq", SEQUENCE, sa.Identity(always=True), nullable=False),
        sa.Column("run_task_id", IDENTIFIER, nullable=False),
        sa.Column("step_id", IDENTIFIER, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("result", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("wait_task_id", IDENTIFIER, nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_steps"),
        sa.UniqueConstraint("run_task_id", "step_id", name="uq_steps_run_task_id_step_id"),
        sa.ForeignKeyConstraint(
            ["run_task_id"],
            [runs.c.run_task_id],
            name="fk_steps_run_task_id_runs",
            ondelete="CASCADE",
        ),
        schema=schema,
    )
    op.create_table(
        "claims",
        sa.Column("token", SEQUENCE, sa.Identity(always=True), nullable=False),
        sa.Column("run_task_id", IDENTIFIER, nullable=False),
        sa.Column("owner", IDENTIFIER, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_claims"),
        sa.UniqueConstraint("run_task_id", name="uq_claims_run_task_id"),
        sa.ForeignKeyConstraint(
            ["run_task_id"],
            [runs.c.run_task_id],
            name="fk_claims_run_task_id_runs",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
        schema=schema,
    )
    for name, table, columns, condition in INDEXES:
        where = None if condition is None else sa.text(condition)
        op.create_index(
            name, table, columns, schema=schema, postgresql_where=where, sqlite_where=where
        )
    if context.dialect.name == "postgresql":
        execute(f"ALTER TABLE {quoted_table('runs')} SET (fillfactor = 80)")
        compress_with_lz4("runs", "definition", "input", "context")
        compress_with_lz4("steps", "result", "error")


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for table in ("claims", "steps", "runs"):
        op.drop_table(table, schema=schema)


def compress_with_lz4(table: str, *columns: str) -> None:
    # The server decides, so that the same offline SQL serves every server.
    changes = ", ".join(f"ALTER COLUMN {column} SET COMPRESSION lz4" for column in columns)
    statement = quoted_text(f"ALTER TABLE {quoted_table(table)} {changes}")
    block = (
        "BEGIN IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' "
        f"AND 'lz4' = ANY (enumvals)) THEN EXECUTE {statement}; END IF; END"
    )
    execute(f"DO {quoted_text(block)}")


def execute(statement: str) -> None:
    op.execute(sa.text(statement.replace(":", r"\:")))


def quoted_table(name: str) -> str:
    context = op.get_context()
    table = sa.table(name, schema=context.version_table_schema)
    return context.dialect.identifier_preparer.format_table(table)


def quoted_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
