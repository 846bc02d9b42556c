"""The command `doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ..formatting import counted
from .common import Exit, display_url, print_data, print_message, run, validate_url
from .options import Json, Schema, Url
from .progress import draw

if TYPE_CHECKING:
    from ..sql.doctor import Finding

__all__ = ["doctor"]


def doctor(
    url: Url = None,
    schema: Schema = None,
    running_for_s: Annotated[
        float,
        typer.Option(
            "--running-for-s",
            metavar="SECONDS",
            help="Warn about steps that have been running for longer than this.",
        ),
    ] = 3600.0,
    as_json: Json = False,
) -> None:
    """Check the database and suggest a fix for each problem.

    Each finding is rated good, warning or bad. The command never writes to the database. The exit
    status is 1 if any finding is bad.

    Example: workflow-store doctor --url postgresql://user:password@host/name
    """
    from ..sql.doctor import Verdict, examine

    async def work() -> list[Finding]:
        validate_url(url)
        findings = examine(url, schema=schema, running_for_s=running_for_s)
        return [finding async for finding in findings]

    findings = run(work())
    if as_json:
        print_data(json.dumps({"findings": [finding._asdict() for finding in findings]}))
    else:
        from .findings import FindingsTable

        draw(FindingsTable(findings))
    verdicts = [finding.verdict for finding in findings]
    print_message(
        f"{display_url(url)}: {verdicts.count(Verdict.GOOD)} good, "
        f"{counted(verdicts.count(Verdict.WARNING), 'warning')}, {verdicts.count(Verdict.BAD)} bad."
    )
    if Verdict.BAD in verdicts:
        raise typer.Exit(Exit.FAILURE)
