"""The revisions on disk, and the revision that a database is at."""

from __future__ import annotations

import shlex
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from ...errors import SchemaMismatchError
from ..models import REVISION, VERSION_TABLE

__all__ = ["is_newer", "known_revisions", "mismatch_error", "read_revision", "script_location"]


def script_location() -> Path:
    """Return the folder of our `env.py`: in the package, or in the checkout around it."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "migrations"
    if installed.is_dir():
        return installed
    return package.parents[1] / "migrations"  # a checkout, or an editable install of one


def known_revisions() -> list[str]:
    """Return the ids of our revisions, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(script_location()))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def is_newer(revision: str) -> bool:
    """Return whether only a newer version of this package can have made a revision.

    Revisions are never removed after a release, so this version knows every older one.
    """
    return revision not in known_revisions()


def read_revision(connection: Connection, schema: str | None) -> str | None:
    """Return the revision of our tables, or None if there are none."""
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    return connection.scalar(select(versions.c.version_num))


def mismatch_error(revision: str | None, url_name: str, schema: str | None) -> SchemaMismatchError:
    """Return the error for a database that is not at `REVISION`.

    Args:
        revision: the revision of the database, None if it has no tables.
        url_name: the masked URL of the database.
        schema: the PostgreSQL schema of the tables.
    """
    option = f" --schema {shlex.quote(schema)}" if schema else ""
    if revision is None:
        problem = f"{url_name} has no workflow-store tables."
    else:
        problem = f"{url_name} is at revision {revision}, but this version requires {REVISION}."
    if revision is not None and is_newer(revision):
        advice = (
            "The database is newer than this version of workflow-store: install the version that "
            "migrated it, or a newer one."
        )
    else:
        advice = (
            f"Run `workflow-store migrate{option} --url URL` (the command comes with "
            "`pip install 'workflow-store[cli]'`), open the store with migrate=True, or, if you "
            "run workflow-store's revisions from your own Alembic environment, run "
            "`alembic upgrade workflow_store@head`."
        )
    return SchemaMismatchError(f"{problem} {advice}", found=revision, expected=REVISION)
