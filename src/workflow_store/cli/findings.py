"""The findings of `doctor`, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..rendering.console import ConsoleText
from ..sql.doctor import Finding, Verdict

__all__ = ["FindingsTable"]

_STYLES = {
    Verdict.GOOD: ("✓", "+", "green"),
    Verdict.WARNING: ("!", "!", "yellow"),
    Verdict.BAD: ("✗", "x", "bold red"),
}


class FindingsTable:
    """Findings in their order, each with its advice below."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = findings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        console_text = ConsoleText(options)
        width = max((len(finding.check) for finding in self._findings), default=0)
        for finding in self._findings:
            symbol, ascii_symbol, style = _STYLES[finding.verdict]
            line = Table.grid(padding=(0, 2))
            line.add_column(no_wrap=True)
            line.add_column(no_wrap=True, width=width)
            line.add_column(overflow="fold")
            line.add_row(
                Text(console_text.pick(symbol, ascii_symbol), style),
                Text(finding.check.replace("_", " "), "" if finding.advice else "dim"),
                console_text.text(finding.found),
            )
            yield line
            if finding.advice:
                yield Padding(console_text.text(finding.advice, "italic"), (0, 0, 0, width + 5))
