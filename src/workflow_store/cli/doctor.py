"""The command `doctor`: the findings of an examination, and their rendering."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..rendering.console import Pen
from ..sql.doctor import Finding, Verdict, examine
from .common import Exit, emit, name_of, refuse_memory, say
from .options import Json, Schema, Url
from .progress import draw

__all__ = ["FindingsTable", "doctor"]

_STYLES = {
    Verdict.GOOD: ("✓", "+", "green"),
    Verdict.WARNING: ("!", "!", "yellow"),
    Verdict.BAD: ("✗", "x", "bold red"),
}


def doctor(
    url: Url = None,
    schema: Schema = None,
    running_for_s: Annotated[
        float,
        typer.Option(
            "--running-for-s",
            metavar="SECONDS",
            help="Warn about steps that have been in running for longer than this.",
        ),
    ] = 3600.0,
    as_json: Json = False,
) -> None:
    """Check the database, and suggest fixes.

    Every finding is good, a warning or bad. Nothing is written. Exits with 1 if a finding is bad.

    Example: workflow-store doctor --url postgresql://user:password@host/name
    """

    async def run() -> list[Finding]:
        refuse_memory(url)
        return [
            finding async for finding in examine(url, schema=schema, running_for_s=running_for_s)
        ]

    findings = asyncio.run(run())
    if as_json:
        emit(json.dumps({"findings": [finding._asdict() for finding in findings]}))
    else:
        draw(FindingsTable(findings))
    counts = Counter(finding.verdict for finding in findings)
    say(
        f"{name_of(url)}: {counts[Verdict.GOOD]} good, {counts[Verdict.WARNING]} warnings, "
        f"{counts[Verdict.BAD]} bad."
    )
    if counts[Verdict.BAD]:
        raise typer.Exit(Exit.NO)


class FindingsTable:
    """Findings in their order, each with its advice below."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = findings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pen = Pen(options)
        width = max((len(finding.check) for finding in self._findings), default=0)
        for finding in self._findings:
            symbol, ascii_symbol, style = _STYLES[finding.verdict]
            line = Table.grid(padding=(0, 2))
            line.add_column(no_wrap=True)
            line.add_column(no_wrap=True, width=width)
            line.add_column(overflow="fold")
            line.add_row(
                Text(pen.either(symbol, ascii_symbol), style),
                Text(finding.check.replace("_", " "), "" if finding.advice else "dim"),
                pen.text(finding.found),
            )
            yield line
            if finding.advice:
                yield Padding(pen.text(finding.advice, "italic"), (0, 0, 0, width + 5))
