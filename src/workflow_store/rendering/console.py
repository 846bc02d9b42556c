"""Writes what a console can show: text as text, in its width and its encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from ..state import TaskStatus
from .escaping import encodable, visible
from .status_styles import LOOKS, Look

__all__ = ["Flow", "Pen"]


class Flow:
    """Texts one after the other, as many on a line as there is room for, each in one piece.

    Only one that is wider than the console goes over more than a line.
    """

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
        whole = sum(widths) + len(self._gap) * (len(widths) - 1)
        return Measurement(max(widths), whole).with_maximum(options.max_width)


class Pen:
    """Writes for one console.

    Attributes:
        width: how many columns there are.
    """

    def __init__(self, options: ConsoleOptions) -> None:
        self.width = options.max_width
        self._encoding = options.encoding
        self._plain = options.ascii_only

    def either(self, fine: str, plain: str) -> str:
        """Give what the console can show of the two."""
        return plain if self._plain else fine

    def text(self, data: str, style: str = "", *, width: int | None = None) -> Text:
        """Give data as text on one line, never as markup.

        Args:
            data: any string.
            style: a style, as Rich writes it.
            width: the columns that it may take; what is wider is cut and has an ellipsis.
        """
        shown = visible(data)
        if self._plain:
            shown = encodable(shown, self._encoding)
        if width is not None and cell_len(shown) > width:
            ellipsis = self.either("…", "...")[:width]
            shown = set_cell_size(shown, width - len(ellipsis)) + ellipsis
        return Text(shown, style=style)

    def symbol(self, look: Look) -> Text:
        """Give the symbol of a status."""
        return Text(self.either(look.symbol, look.plain), style=look.style)

    def counts(self, counts: Mapping[TaskStatus, int], *, words: bool) -> list[Text]:
        """Give how many steps are in each status; what has none is left out.

        Args:
            counts: the steps by status.
            words: name the statuses beside their symbols.
        """
        parts = [
            Text.assemble(
                self.symbol(look),
                f" {counts[status]}" if words else str(counts[status]),
                (f" {look.word}" if words else "", "dim"),
            )
            for status, look in LOOKS.items()
            if counts.get(status)
        ]
        return parts or [Text("no steps", style="dim")]
