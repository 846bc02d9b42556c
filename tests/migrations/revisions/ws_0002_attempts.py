"""Add a column with data, and two indexes: a second revision, which only the tests have.

It uses all that a later revision may need. The indexes are built first and outside of a
transaction on PostgreSQL, so that writers go on; if a build is interrupted, the revision can
simply run again. The rest, with the version, is one transaction.

Revision ID: ws_0002
Revises: ws_0001
"""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "ws_0002"
down_revision = "ws_0001"
branch_labels = None
depends_on = None

INDEXES = [
    ("ix_steps_started_at", "steps", ["started_at"]),
    ("ix_steps_completed_at", "steps", ["completed_at"]),
]


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    with beside_writers() as concurrently:
        for name, table, columns in INDEXES:
            # An interrupted build leaves an invalid index behind.
            op.drop_index(
                name, table, schema=schema, if_exists=True, postgresql_concurrently=concurrently
            )
            op.create_index(
                name, table, columns, schema=schema, postgresql_concurrently=concurrently
            )
    attempts = sa.Column("attempts", sa.Integer(), nullable=False, server_default="1")
    op.add_column("runs", attempts, schema=schema)
    runs = sa.table("runs", sa.column("attempts"), sa.column("agent_id"), schema=schema)
    op.execute(sa.update(runs).where(runs.c.agent_id == "a").values(attempts=sa.text("2")))


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_column("runs", "attempts", schema=schema)
    with beside_writers() as concurrently:
        for name, table, _ in reversed(INDEXES):
            op.drop_index(
                name, table, schema=schema, if_exists=True, postgresql_concurrently=concurrently
            )


@contextlib.contextmanager
def beside_writers() -> Iterator[bool]:
    """Leave the transaction on PostgreSQL; SQLite has one writer, and no such builds."""
    context = op.get_context()
    if context.dialect.name == "postgresql":
        with context.autocommit_block():
            yield True
    else:
        yield False
