"""Output, exit codes and access to the store, for all commands.

In this folder, SQLAlchemy, pydantic, Rich and Jinja are imported by the functions that use
them: `--help` and `--version` take a quarter of the time without them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from ..rendering.escaping import escape_invisible

if TYPE_CHECKING:
    from ..store import ResumableWorkflowStore

__all__ = [
    "Exit", "display_url", "fail", "fail_run_not_found", "open_private", "opened", "print_data",
    "print_message", "require_stdout", "run", "stdout_is_terminal", "validate_url",
]  # fmt: skip

_MEMORY = "memory:"

T = TypeVar("T")


class Exit(IntEnum):
    """The exit statuses of the command."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own."""
    import asyncio

    return asyncio.run(main)


def fail(message: str, status: Exit = Exit.FAILURE) -> NoReturn:
    """Print a message and exit."""
    print_message(message)
    raise typer.Exit(status)


def fail_run_not_found(run_task_id: str, url: str | None) -> NoReturn:
    """Report that the database has no such run, and exit."""
    fail(f"There is no run {run_task_id!r} in {display_url(url)}.")


def print_message(message: str) -> None:
    """Print a message for the user, on standard error."""
    typer.echo(escape_invisible(message), err=True)


def print_data(line: str) -> None:
    """Print a line of the requested data on standard output, in UTF-8 whatever the locale.

    JSON may contain characters that control a terminal, so on a terminal they are written as
    JSON escapes.
    """
    require_stdout()
    if stdout_is_terminal():
        line = "".join(
            char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in line
        )
    typer.echo(line.encode())


def open_private(path: Path) -> IO[bytes]:
    """Open a file for writing. A new file can be read by its owner only; others keep their mode."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def require_stdout() -> None:
    """Fail if standard output is closed: the data would be lost silently."""
    if sys.stdout is None:
        fail("Standard output is closed: the result could not be printed.")


def stdout_is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()  # None if it is closed


def display_url(url: str | None) -> str:
    """Return the database's URL without its secrets, for a message."""
    from ..sql.urls import DatabaseUrl, default_url

    url = url or default_url()
    if url.startswith(_MEMORY):
        return _MEMORY + "//"
    try:
        return DatabaseUrl.parse(url).name
    except ValueError as error:
        fail(str(error), Exit.USAGE)


def validate_url(url: str | None) -> None:
    """Fail if the URL is invalid or names a database in memory, which is always empty."""
    from ..sql.urls import DatabaseUrl, default_url

    name = display_url(url)
    if name.startswith(_MEMORY) or DatabaseUrl.parse(url or default_url()).is_in_memory:
        fail(
            f"Data in {name} is lost when this command exits: use --url or WORKFLOW_STORE_URL to "
            "specify a SQLite file or a PostgreSQL server.",
            Exit.USAGE,
        )


@asynccontextmanager
async def opened(
    url: str | None, schema: str | None, *, migrate: bool | None = False
) -> AsyncIterator[ResumableWorkflowStore]:
    """Open the store, which must exist and be at the revision that this version needs.

    Args:
        url: the database; None for the default.
        schema: the PostgreSQL schema of the tables.
        migrate: None to create a SQLite file, and bring it up to date.
    """
    from ..factory import open_store

    validate_url(url)
    # It also works without a pooler, and no option is needed to use one in transaction mode.
    async with open_store(url, schema=schema, migrate=migrate, transaction_pooler=True) as store:
        yield store
