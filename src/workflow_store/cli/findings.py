"""What was found by an examination, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..rendering.console import ConsoleText
from ..sql.doctor import Finding, Verdict

__all__ = ["findings_table"]

_LOOKS = {
    Verdict.GOOD: ("✓", "+", "green"),
    Verdict.WARNING: ("!", "!", "yellow"),
    Verdict.BAD: ("✗", "x", "bold red"),
}


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Draw findings, in their order, each with what to do below it."""
    return _Findings(findings)


class _Findings:
    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = findings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pen = ConsoleText(options)
        width = max((len(finding.check) for finding in self._findings), default=0)
        for finding in self._findings:
            fine, plain, style = _LOOKS[finding.verdict]
            line = Table.grid(padding=(0, 2))
            line.add_column(no_wrap=True)
            line.add_column(no_wrap=True, width=width)
            line.add_column(overflow="fold")
            line.add_row(
                Text(pen.pick(fine, plain), style),
                Text(finding.check.replace("_", " "), "" if finding.advice else "dim"),
                pen.text(finding.found),
            )
            yield line
            if finding.advice:
                yield Padding(pen.text(finding.advice, "italic"), (0, 0, 0, width + 5))
