"""Compress large JSON values with lz4, where the server was built with it.

A value of more than about 2 KB is compressed by the server, by default with its older and
slower method, pglz. This changes what is written from now on; what is there stays as it is
and is read as before, and no table is rewritten. SQLite compresses nothing.

Revision ID: 0002
Revises: 0001
Created: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {"runs": ["definition", "input", "context"], "steps": ["result", "error"]}


def upgrade() -> None:
    set_compression("lz4")


def downgrade() -> None:
    set_compression("default")


def set_compression(method: str) -> None:
    context = op.get_context()
    if context.dialect.name != "postgresql":
        return
    names = context.dialect.identifier_preparer
    for table, columns in COLUMNS.items():
        name = names.format_table(sa.table(table, schema=context.version_table_schema))
        changes = ", ".join(f"ALTER COLUMN {column} SET COMPRESSION {method}" for column in columns)
        # The server decides, so that the same text does as offline SQL. PostgreSQL before 14,
        # which has no such setting, must not even parse the statement inside.
        block = (
            "BEGIN IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' "
            f"AND 'lz4' = ANY (enumvals)) THEN EXECUTE {quoted(f'ALTER TABLE {name} {changes}')}; "
            "END IF; END"
        )
        op.execute(sa.text(f"DO {quoted(block)}".replace(":", r"\:")))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
