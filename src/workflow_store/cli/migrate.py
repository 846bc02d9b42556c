"""The commands that concern the schema: migrate, check, current, downgrade."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from ..errors import SchemaMismatchError
from ..sql import migrate as migrations
from ..sql.migrate.revisions import known_revisions
from ..sql.models import REVISION
from .common import Exit, emit, name_of, refuse, refuse_memory, say
from .options import Json, Schema, Url, Yes, confirm

__all__ = ["check", "current", "downgrade", "migrate"]


def migrate(
    to: Annotated[str, typer.Option("--to", metavar="REV", help="The revision to go to.")] = "head",
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead, for a database team.")
    ] = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Bring the tables to the newest revision.

    They are made where there are none. Replicas may do this at the same moment: one does, the
    others wait. With --sql nothing is connected to; --to may then be a range such as ws_0001:head.

    Example: workflow-store migrate --url postgresql://user:password@host/name
    """

    async def work() -> None:
        if sql:
            text = await migrations.offline_sql(url, to, schema=schema)
            emit(text.rstrip("\n"))
            return
        refuse_memory(url)
        before = await migrations.upgrade(url, to, schema=schema)
        after = await migrations.current(url, schema=schema)
        say(_moved(name_of(url), before, after))

    asyncio.run(work())


def check(url: Url = None, schema: Schema = None, as_json: Json = False) -> None:
    """Tell whether the tables are up to date.

    That is, at the revision that this version needs. Ends with 0 where they are and with 1 where
    they are not, and says what to do then.

    Example: workflow-store check && start-the-application
    """

    async def work() -> None:
        refuse_memory(url)
        found: str | None = REVISION
        problem: SchemaMismatchError | None = None
        try:
            await migrations.check(url, schema=schema)
        except SchemaMismatchError as error:
            problem, found = error, error.found
        if as_json:
            emit(json.dumps({"ok": problem is None, "revision": found, "needed": REVISION}))
        if problem is not None:
            refuse(str(problem))
        say(f"{name_of(url)} is at revision {REVISION}, which this version needs.")

    asyncio.run(work())


def current(url: Url = None, schema: Schema = None, as_json: Json = False) -> None:
    """Print the revision that the tables are at.

    Example: workflow-store current --url sqlite:///runs.db
    """

    async def work() -> None:
        refuse_memory(url)
        found = await migrations.current(url, schema=schema)
        if as_json:
            emit(json.dumps({"revision": found, "head": REVISION}))
        else:
            emit(f"{found or 'none'}{' (head)' if found == REVISION else ''}")

    asyncio.run(work())


def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="The revision to go back to, or base.")
    ],
    url: Url = None,
    schema: Schema = None,
    yes: Yes = False,
) -> None:
    """Bring the tables back to an older revision.

    The revision base drops them with all runs.

    Example: workflow-store downgrade ws_0001 --yes
    """

    async def work() -> None:
        refuse_memory(url)
        before = await migrations.downgrade(url, revision, schema=schema)
        after = await migrations.current(url, schema=schema)
        say(_moved(name_of(url), before, after))

    _make_sure_it_is_known(revision)
    loss = "drops all runs of" if revision == "base" else "changes the tables of"
    confirm(f"Going back to {revision} {loss} {name_of(url)}.", yes=yes)
    asyncio.run(work())


def _make_sure_it_is_known(revision: str) -> None:
    """Refuse what Alembic would work out, so that a way to base is told before it is gone."""
    known = [*known_revisions(), "head", "base"]
    if revision not in known:
        refuse(f"There is no revision {revision!r}: name one of {', '.join(known)}.", Exit.USAGE)


def _moved(where: str, before: str | None, after: str | None) -> str:
    if before == after:
        return f"{where} is at revision {after or 'none'} already; nothing was done."
    return f"{where} went from revision {before or 'none'} to {after or 'none'}."
