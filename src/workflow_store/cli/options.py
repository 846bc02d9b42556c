"""Options that several commands have, parsers of their values, and the confirmation prompt."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ..rendering.escaping import escape_invisible
from .common import Exit, fail

if TYPE_CHECKING:
    from ..state import TaskStatus

__all__ = ["Json", "Schema", "Url", "Yes", "confirm", "parse_status", "parse_time"]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="WORKFLOW_STORE_URL",
        help="The database, such as sqlite:///runs.db or postgresql://user:password@host/name. "
        "The default is sqlite:///workflow_store.db.",
        show_default=False,
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="NAME",
        envvar="WORKFLOW_STORE_SCHEMA",
        help="The PostgreSQL schema of the tables.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str) -> datetime:
    """Parse a time with its offset, a date (midnight UTC) or an age."""
    try:
        if age := re.fullmatch(r"(\d+)([smhdw])", text, re.ASCII):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(
        "must be a timestamp with a UTC offset (2026-01-31T23:59:59Z), a date (2026-01-31), or an "
        "age: a number followed by s, m, h, d or w, such as 12h or 30d."
    )


def parse_status(text: str) -> TaskStatus:
    """Parse the status of a step."""
    from ..state import TaskStatus

    try:
        return TaskStatus(text)
    except ValueError:
        raise typer.BadParameter(f"must be one of {', '.join(TaskStatus)}.") from None


def confirm(consequence: str, *, yes: bool) -> None:
    """Ask the user to confirm; without a terminal to ask on, require `--yes`."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():  # None if it is closed
        fail(f"{consequence} Pass --yes to confirm.", Exit.USAGE)
    if not typer.confirm(f"{escape_invisible(consequence)} Continue?", err=True):
        fail("Nothing was changed.")
