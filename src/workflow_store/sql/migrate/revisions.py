"""Where our revisions lie, and the table that tells which one a database is at.

Both are our own, whoever runs the revisions: our `migrations/env.py`, or the Alembic of a
host application that has them as a branch beside its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, column, delete, insert, inspect, literal_column, select, table
from sqlalchemy.schema import CreateTable

from ..models import VERSION_TABLE

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from alembic.script import ScriptDirectory

__all__ = [
    "known_revisions",
    "on_version_apply",
    "read_revision",
    "script_location",
    "version_location",
]


def script_location() -> Path:
    """Give the folder of our `env.py`: in the package, or in the checkout that it lies in."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "migrations"
    if installed.is_dir():
        return installed
    return package.parents[1] / "migrations"  # a checkout, or an editable install of one


def version_location() -> Path:
    """Give the folder of our revisions, for `version_locations` of a host's Alembic.

    In an installed wheel it is also `workflow_store:migrations/versions`, which can stand in
    an `alembic.ini`.
    """
    return script_location() / "versions"


def known_revisions() -> list[str]:
    """Give the ids of our revisions, the oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(script_location()))
    return sorted(each.revision for each in scripts.walk_revisions())


def read_revision(connection: Connection, schema: str | None) -> str | None:
    """Tell the revision that our tables are at, None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    return connection.scalar(select(versions.c.version_num))


def on_version_apply(
    *,
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],
    run_args: Mapping[str, Any],
) -> None:
    """Keep our version table in step where a host's Alembic runs our revisions.

    For a host application that has our revisions as a branch: hand it to
    `context.configure(on_version_apply=…)` in the host's `env.py`. A store that is opened, and
    `check`, look into our own table, since the host's tells about other revisions too. It is
    written in the transaction of each of our revisions, up and down, and as offline SQL. The
    table is in the host's `version_table_schema`, as our other tables then are.

    A stamp changes no table, and so writes nothing: a check goes on to tell what our tables are
    at.

    Args:
        ctx: what runs the revisions.
        step: the revision that was just applied, or a stamp.
        heads: the revisions that the database is at now.
        run_args: not looked at.
    """
    script = cast("ScriptDirectory", ctx.script)  # which Alembic's own commands give
    if step.is_stamp or not any(_is_ours(script, each) for each in step.up_revision_ids):
        return
    # With what they merge and depend on; the newest first.
    known = script.iterate_revisions(tuple(heads), "base") if heads else ()
    ours = [each.revision for each in known if _is_ours(script, each.revision)]
    versions = ctx.impl.version_table_impl(
        version_table=VERSION_TABLE,
        version_table_schema=ctx.version_table_schema,
        version_table_pk=True,
    )
    ctx.execute(CreateTable(versions, if_not_exists=True))
    ctx.execute(delete(versions))
    if ours:
        # Not a parameter, which offline SQL has not.
        ctx.execute(insert(versions).values(version_num=literal_column(f"'{ours[0]}'")))


def _is_ours(script: ScriptDirectory, revision: str) -> bool:
    """Tell by its file, since a host may choose ids like ours."""
    return Path(script.get_revision(revision).path).resolve().parent == version_location()
