"""${message}

The code of the previous revision must keep working on the new schema, since old and new
processes run side by side during a deploy: add, fill, and drop only a revision later.
Once released, a revision never changes. Its upgrade and its downgrade work on SQLite and on
PostgreSQL with rows in the tables. It imports nothing of the package.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Created: ${create_date}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
