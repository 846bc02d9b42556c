"""What the commands have in common: output, messages, exit codes, and the store."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from ..factory import open_store
from ..rendering.escaping import visible
from ..sql.urls import DatabaseUrl, default_url
from ..store import ResumableWorkflowStore

__all__ = [
    "Exit", "emit", "make_sure_of_output", "name_of", "opened", "refuse", "refuse_memory", "say",
    "to_terminal",
]  # fmt: skip

_MEMORY = "memory:"


class Exit(IntEnum):
    """What the command's exit code means."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3


def refuse(message: str, code: Exit = Exit.NO) -> NoReturn:
    """Say what is wrong, and end."""
    say(message)
    raise typer.Exit(code)


def say(message: str) -> None:
    """Tell the user something that is not the data asked for, on standard error."""
    typer.echo(visible(message), err=True)


def emit(line: str) -> None:
    """Print a line of data, in UTF-8 wherever it goes.

    A terminal may act on characters that JSON lets stand, so they are escaped there, as JSON can.
    """
    make_sure_of_output()
    if to_terminal():
        line = "".join(
            char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in line
        )
    typer.echo(line.encode())


def make_sure_of_output() -> None:
    """Refuse to print data where that would be lost in silence."""
    if sys.stdout is None:
        refuse("Standard output is closed: what was asked for could not be printed.")


def to_terminal() -> bool:
    """Tell whether the data goes to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()  # None where it is closed


def name_of(url: str | None) -> str:
    """Render a database for a message, without its secrets."""
    url = url or default_url()
    if url.startswith(_MEMORY):
        return _MEMORY + "//"
    try:
        return DatabaseUrl.parse(url).name
    except ValueError as error:
        refuse(str(error), Exit.USAGE)


def refuse_memory(url: str | None) -> None:
    """Refuse a database that ends with the command, in which there is nothing to be found."""
    name = name_of(url)
    if _ends_with_the_process(url or default_url()):
        refuse(
            f"{name} is empty whenever a command begins: name a database with --url or "
            "WORKFLOW_STORE_URL.",
            Exit.USAGE,
        )


def _ends_with_the_process(url: str) -> bool:
    if url.startswith(_MEMORY):
        return True
    return DatabaseUrl.parse(url).is_in_memory


@asynccontextmanager
async def opened(
    url: str | None, schema: str | None, *, migrate: bool | None = False
) -> AsyncIterator[ResumableWorkflowStore]:
    """Open a store that is there already, at the revision that it must have.

    Args:
        url: the database, None for the environment's.
        schema: the PostgreSQL schema of its tables.
        migrate: None where a SQLite file may be made and brought up to date.
    """
    refuse_memory(url)
    # A pooler in transaction mode may lie between, and its users should not need to say so.
    async with open_store(url, schema=schema, migrate=migrate, transaction_pooler=True) as store:
        yield store
