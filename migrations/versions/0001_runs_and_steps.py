"""The tables of runs and steps.

Revision ID: 0001
Revises:
Created: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Byte order whatever the server's locale is; SQLite's default.
IDENTIFIER = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
# The text as it was written; see workflow_store.sql.dialects.JsonText.
JSON = sa.Text().with_variant(postgresql.JSON(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    schema = op.get_context().version_table_schema
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
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=True),
            nullable=False,
        ),
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


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_table("steps", schema=schema)
    op.drop_table("runs", schema=schema)
