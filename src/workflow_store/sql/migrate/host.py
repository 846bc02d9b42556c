"""Hooks for the Alembic of a host application that has our tables in its database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, literal_column
from sqlalchemy.schema import CreateTable, SchemaItem

from ..models import VERSION_TABLE, Base
from .revisions import script_location

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from alembic.script import ScriptDirectory

__all__ = ["include_name", "include_object", "on_version_apply", "version_location"]

_TABLES = frozenset({*Base.metadata.tables, VERSION_TABLE})


def version_location() -> Path:
    """Return the folder of our revisions, for `version_locations` of a host's Alembic.

    In an installed wheel this is also `workflow_store:migrations/versions`, a form that
    `alembic.ini` accepts.
    """
    return script_location() / "versions"


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],
    *,
    schema: str | None = None,
) -> bool:
    """Exclude our tables from autogenerate, which would otherwise drop them.

    A host application passes this to `context.configure(include_name=…)` in its `env.py`. If
    our tables have a schema of their own, it passes
    `functools.partial(include_name, schema="…")`.
    """
    return not (type_ == "table" and name in _TABLES and parent_names.get("schema_name") == schema)


def include_object(
    object_: SchemaItem,
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: SchemaItem | None,
    *,
    schema: str | None = None,
) -> bool:
    """Exclude our tables as `include_name` does, for an `env.py` that has `include_object`."""
    return not (
        type_ == "table"
        and reflected
        and compare_to is None
        and name in _TABLES
        and getattr(object_, "schema", None) == schema
    )


def on_version_apply(
    *,
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],
    run_args: Mapping[str, Any],
) -> None:
    """Keep our version table up to date while a host's Alembic runs our revisions.

    A host application whose Alembic has our revisions as a branch passes this to
    `context.configure(on_version_apply=…)` in its `env.py`. Opening a store, and `check`, read
    our own version table, since the host's also holds the host's revisions. It is written in
    the transaction of each of our revisions, on upgrade and downgrade, and in offline SQL. Like
    our other tables it is in the host's `version_table_schema`.

    Stamps are ignored: they change no table, so `check` keeps reporting the real revision.

    Args:
        ctx: the context that runs the revisions.
        step: the revision that was just applied, or a stamp.
        heads: the revisions that the database is at now.
        run_args: not used.
    """
    script = cast("ScriptDirectory", ctx.script)  # set by all of Alembic's commands
    if step.is_stamp or not any(_is_ours(script, revision) for revision in step.up_revision_ids):
        return
    # Newest first, with the revisions that the heads merge or depend on.
    applied = script.iterate_revisions(tuple(heads), "base") if heads else ()
    ours = [entry.revision for entry in applied if _is_ours(script, entry.revision)]
    versions = ctx.impl.version_table_impl(
        version_table=VERSION_TABLE,
        version_table_schema=ctx.version_table_schema,
        version_table_pk=True,
    )
    ctx.execute(CreateTable(versions, if_not_exists=True))
    ctx.execute(delete(versions))
    if ours:
        # A literal, because offline SQL has no parameters.
        ctx.execute(insert(versions).values(version_num=literal_column(f"'{ours[0]}'")))


def _is_ours(script: ScriptDirectory, revision: str) -> bool:
    """Return whether a revision is one of our files, since a host may use ids like ours."""
    return Path(script.get_revision(revision).path).resolve().parent == version_location()
