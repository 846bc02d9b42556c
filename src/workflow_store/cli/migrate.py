"""The commands about the schema: migrate, check, current, downgrade."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import SchemaMismatchError
from .common import Exit, display_url, fail, print_data, print_message, run, validate_url
from .options import Json, Schema, Url, Yes, confirm

__all__ = ["check", "current", "downgrade", "migrate"]


def migrate(
    to: Annotated[
        str, typer.Option("--to", metavar="REV", help="The revision to migrate to.")
    ] = "head",
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead of executing it.")
    ] = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Create the tables, or migrate them to the newest revision.

    Several replicas may run this at once: one migrates, the others wait. With --sql, no database
    connection is made, and --to may be a range such as ws_0001:head.

    Example: workflow-store migrate --url postgresql://user:password@host/name
    """
    from ..sql import migrate as migrations

    async def work() -> None:
        if sql:
            script = await migrations.offline_sql(url, to, schema=schema)
            print_data(script.rstrip("\n"))
            return
        validate_url(url)
        before = await migrations.upgrade(url, to, schema=schema)
        after = await migrations.current(url, schema=schema)
        _report_change(url, before, after)

    run(work())


def check(url: Url = None, schema: Schema = None, as_json: Json = False) -> None:
    """Check whether the tables are up to date.

    If they are not at the revision that this version requires, the exit status is 1, and a
    message explains what to do.

    Example: workflow-store check && start-the-application
    """
    from ..sql import migrate as migrations
    from ..sql.models import REVISION

    async def work() -> None:
        validate_url(url)
        try:
            await migrations.check(url, schema=schema)
        except SchemaMismatchError as error:
            if as_json:
                report = {"ok": False, "revision": error.found, "needed": REVISION}
                print_data(json.dumps(report))
            raise
        if as_json:
            print_data(json.dumps({"ok": True, "revision": REVISION, "needed": REVISION}))
        print_message(
            f"{display_url(url)} is at revision {REVISION}, as this version of workflow-store "
            "requires."
        )

    run(work())


def current(url: Url = None, schema: Schema = None, as_json: Json = False) -> None:
    """Print the current revision of the tables.

    Example: workflow-store current --url sqlite:///runs.db
    """
    from ..sql import migrate as migrations
    from ..sql.models import REVISION

    async def work() -> None:
        validate_url(url)
        revision = await migrations.current(url, schema=schema)
        if as_json:
            print_data(json.dumps({"revision": revision, "head": REVISION}))
        else:
            print_data(f"{revision or 'none'}{' (head)' if revision == REVISION else ''}")

    run(work())


def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="The older revision, or 'base' to drop the tables.")
    ],
    url: Url = None,
    schema: Schema = None,
    yes: Yes = False,
) -> None:
    """Downgrade the tables to an older revision.

    Downgrading to 'base' drops the tables and every run in them.

    Example: workflow-store downgrade ws_0001 --yes
    """
    from ..sql import migrate as migrations

    async def work() -> None:
        validate_url(url)
        before = await migrations.downgrade(url, revision, schema=schema)
        after = await migrations.current(url, schema=schema)
        _report_change(url, before, after)

    _require_known(revision)
    loss = "drops every run in" if revision == "base" else "changes the tables in"
    confirm(f"Downgrading to {revision} {loss} {display_url(url)}.", yes=yes)
    run(work())


def _require_known(revision: str) -> None:
    """Accept explicit revisions only (no `-1`), so that the confirmation can name the loss."""
    from ..sql.migrate.revisions import known_revisions

    known = [*known_revisions(), "head", "base"]
    if revision not in known:
        fail(f"There is no revision {revision!r}: pass one of {', '.join(known)}.", Exit.USAGE)


def _report_change(url: str | None, before: str | None, after: str | None) -> None:
    name = display_url(url)
    if before == after:
        state = f"is already at revision {after}" if after else "has no tables"
        print_message(f"{name} {state}; nothing was changed.")
    elif before is None:
        print_message(f"Created the tables in {name} at revision {after}.")
    elif after is None:
        print_message(f"Dropped the tables in {name}.")
    else:
        print_message(f"{name} was migrated from revision {before} to {after}.")
