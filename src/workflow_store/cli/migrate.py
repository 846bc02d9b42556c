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

    Several replicas may run this at once: one migrates, the others wait. With --sql, nothing is
    connected to, and --to may be a range such as ws_0001:head.

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

    If they are not at the revision that this version needs, the exit status is 1, and a message
    says what to do.

    Example: workflow-store check && start-the-application
    """
    from ..sql import migrate as migrations
    from ..sql.models import REVISION

    async def work() -> None:
        validate_url(url)
        revision: str | None = REVISION
        mismatch: SchemaMismatchError | None = None
        try:
            await migrations.check(url, schema=schema)
        except SchemaMismatchError as error:
            mismatch, revision = error, error.found
        if as_json:
            ok = mismatch is None
            print_data(json.dumps({"ok": ok, "revision": revision, "needed": REVISION}))
        if mismatch is not None:
            fail(str(mismatch))
        print_message(
            f"{display_url(url)} is at revision {REVISION}, which this version of "
            "workflow-store needs."
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
        str, typer.Argument(metavar="REV", help="The older revision, or base to drop the tables.")
    ],
    url: Url = None,
    schema: Schema = None,
    yes: Yes = False,
) -> None:
    """Downgrade the tables to an older revision.

    The revision base drops them, with all runs.

    Example: workflow-store downgrade ws_0001 --yes
    """
    from ..sql import migrate as migrations

    async def work() -> None:
        validate_url(url)
        before = await migrations.downgrade(url, revision, schema=schema)
        after = await migrations.current(url, schema=schema)
        _report_change(url, before, after)

    _require_known(revision)
    loss = "drops all runs of" if revision == "base" else "changes the tables of"
    confirm(f"Downgrading to {revision} {loss} {display_url(url)}.", yes=yes)
    run(work())


def _require_known(revision: str) -> None:
    """Accept explicit revisions only (no `-1`), so that the confirmation can name the loss."""
    from ..sql.migrate.revisions import known_revisions

    known = [*known_revisions(), "head", "base"]
    if revision not in known:
        fail(f"There is no revision {revision!r}: pass one of {', '.join(known)}.", Exit.USAGE)


def _report_change(url: str | None, before: str | None, after: str | None) -> None:
    if before == after:
        change = f"is already at revision {after or 'none'}; nothing was changed."
    else:
        change = f"was migrated from revision {before or 'none'} to {after or 'none'}."
    print_message(f"{display_url(url)} {change}")
