"""The command that examines a database and says what to do about what it finds."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from ..sql.doctor import Finding, Verdict, examine
from .common import Exit, emit, name_of, refuse_memory, say
from .findings import findings_table
from .options import Json, Schema, Url
from .progress import draw

__all__ = ["doctor"]


def doctor(
    url: Url = None,
    schema: Schema = None,
    running_for_s: Annotated[
        float,
        typer.Option(
            "--running-for-s",
            metavar="SECONDS",
            help="A step in running for longer than this is worth a warning.",
        ),
    ] = 3600.0,
    as_json: Json = False,
) -> None:
    """Examine the database, and say what to do.

    Each line is good, a warning or bad. It only reads. Ends with 1 where something is bad.

    Example: workflow-store doctor --url postgresql://user:password@host/name
    """

    async def work() -> list[Finding]:
        refuse_memory(url)
        return [each async for each in examine(url, schema=schema, running_for_s=running_for_s)]

    findings = asyncio.run(work())
    if as_json:
        emit(json.dumps({"findings": [finding._asdict() for finding in findings]}))
    else:
        draw(findings_table(findings))
    counts = {verdict: sum(each.verdict is verdict for each in findings) for verdict in Verdict}
    say(
        f"{name_of(url)}: {counts[Verdict.GOOD]} good, {counts[Verdict.WARNING]} warnings, "
        f"{counts[Verdict.BAD]} bad."
    )
    if counts[Verdict.BAD]:
        raise typer.Exit(Exit.NO)
