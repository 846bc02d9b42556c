"""The options that commands have in common."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..rendering.escaping import visible
from .common import Exit, refuse

__all__ = ["Json", "Schema", "Url", "Yes", "confirm", "time"]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="WORKFLOW_STORE_URL",
        help="The database, such as sqlite:///runs.db or postgresql://user:password@host/name; "
        "by default sqlite:///workflow_store.db.",
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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def time(text: str) -> datetime:
    """Read a time: with its offset, a date (its midnight in UTC), or how long ago."""
    try:
        if ago := re.fullmatch(r"(\d+)([smhdw])", text, re.ASCII):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        read = datetime.fromisoformat(text)
        if read.tzinfo is not None:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(
        "must be a time with its offset such as 2026-01-31T23:59:59Z, a date such as 2026-01-31, "
        "or how long ago: 90s, 15m, 12h, 30d, 4w."
    )


def confirm(what: str, *, yes: bool) -> None:
    """Go on only where the user wants it; where nobody can be asked, `--yes` must say so."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():  # None where it is closed
        refuse(f"{what} Add --yes to do it.", Exit.USAGE)
    if not typer.confirm(f"{visible(what)} Go on?", err=True):
        refuse("Nothing was done.")
