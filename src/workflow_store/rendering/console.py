"""Text for a Rich console: escaped, and fitted to its width and encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from ..state import TaskStatus
from .escaping import escape_invisible, escape_unencodable
from .status_styles import STATUS_STYLES, StatusStyle

__all__ = ["ConsoleText", "WrappedRow"]


class WrappedRow:
    """A row of texts that wraps between them; a text that is wider than the console is folded."""

    def __init__(self, parts: Iterable[Text], gap: str = "  ") -> None:
        self._parts = list(parts)
        self._gap = gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text(overflow="fold")
        for part in self._parts:
            if not line:
                line.append_text(part)
            elif line.cell_len + len(self._gap) + part.cell_len <= options.max_width:
                line.append(self._gap).append_text(part)
            else:
                yield line
                line = Text(overflow="fold").append_text(part)
        yield line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [part.cell_len for part in self._parts] or [0]
        total = sum(widths) + len(self._gap) * (len(widths) - 1)
        return Measurement(max(widths), total).with_maximum(options.max_width)


class ConsoleText:
    """Makes text for one console.

    Attributes:
        width: the number of columns.
    """

    def __init__(self, options: ConsoleOptions) -> None:
        self.width = options.max_width
        self._encoding = options.encoding
        self._ascii_only = options.ascii_only

    def pick(self, text: str, ascii_text: str) -> str:
        """Return the first text, or the second if the console has only ASCII."""
        return ascii_text if self._ascii_only else text

    def text(self, data: str, style: str = "", *, width: int | None = None) -> Text:
        """Return data as text on one line, never as markup.

        Args:
            data: any string.
            style: a Rich style.
            width: the maximum number of columns; longer text is cut and gets an ellipsis.
        """
        text = escape_invisible(data)
        if self._ascii_only:
            text = escape_unencodable(text, self._encoding)
        if width is not None and cell_len(text) > width:
            ellipsis = self.pick("…", "...")[:width]
            text = set_cell_size(text, width - len(ellipsis)) + ellipsis
        return Text(text, style=style)

    def symbol(self, style: StatusStyle) -> Text:
        """Return the symbol of a status."""
        return Text(self.pick(style.symbol, style.ascii_symbol), style=style.rich_style)

    def counts(self, counts: Mapping[TaskStatus, int], *, labels: bool) -> list[Text]:
        """Return the number of steps in each status, omitting zeros.

        Args:
            counts: the number of steps by status.
            labels: add the names of the statuses.
        """
        parts = [
            Text.assemble(
                self.symbol(style),
                f" {counts[status]}" if labels else str(counts[status]),
                (f" {style.label}" if labels else "", "dim"),
            )
            for status, style in STATUS_STYLES.items()
            if counts.get(status)
        ]
        return parts or [Text("no steps", style="dim")]
