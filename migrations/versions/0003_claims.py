"""The table of claims: who drives which run, and until when.

The version before this one knows nothing of it and goes on: its deletions reach the claims
by the cascade.

Revision ID: 0003
Revises: 0002
Created: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# As in the first revision.
IDENTIFIER = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    # Only to be referred to: a name in a string would not survive a schema with dots in it.
    runs = sa.Table("runs", sa.MetaData(), sa.Column("run_task_id", IDENTIFIER), schema=schema)
    op.create_table(
        "claims",
        sa.Column(
            "token",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=True),
            nullable=False,
        ),
        sa.Column("run_task_id", IDENTIFIER, nullable=False),
        sa.Column("owner", IDENTIFIER, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
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
    op.create_index("ix_claims_expires_at", "claims", ["expires_at"], schema=schema)


def downgrade() -> None:
    op.drop_table("claims", schema=op.get_context().version_table_schema)
