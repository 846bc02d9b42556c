"""How each status is shown: a symbol, a label and a colour."""

from __future__ import annotations

from typing import NamedTuple

from ..state import TaskStatus
from .graph import Node

__all__ = ["PLANNED", "STATUS_STYLES", "UNKNOWN", "StatusStyle", "style_of"]


class StatusStyle(NamedTuple):
    """How a status is shown.

    Attributes:
        css_class: its class in style sheets and in Mermaid.
        label: its name for people.
        symbol: one cell wide.
        ascii_symbol: the symbol on a terminal that has only ASCII.
        rich_style: its style on a terminal.
    """

    css_class: str
    label: str
    symbol: str
    ascii_symbol: str
    rich_style: str


STATUS_STYLES = {
    TaskStatus.COMPLETED: StatusStyle("completed", "completed", "✓", "+", "green"),
    TaskStatus.RUNNING: StatusStyle("running", "running", "▸", ">", "bright_blue"),
    TaskStatus.INPUT_REQUIRED: StatusStyle("input_required", "input required", "?", "?", "yellow"),
    TaskStatus.FAILED: StatusStyle("failed", "failed", "✗", "x", "bold red"),
    TaskStatus.CANCELED: StatusStyle("canceled", "canceled", "⊘", "/", "magenta"),
    TaskStatus.PENDING: StatusStyle("pending", "pending", "○", "o", "dim"),
}
"""In the order in which counts are shown."""

PLANNED = StatusStyle("planned", "not written yet", "·", ".", "dim")
"""A step of the definition that the run has not written."""

UNKNOWN = StatusStyle("unknown", "unknown, in neither definition nor run", "!", "!", "bold red")
"""A dependency that is neither in the definition nor in the run."""


def style_of(node: Node) -> StatusStyle:
    """Return the style of a node of a graph."""
    if node.step is not None:
        return STATUS_STYLES[node.step.status]
    return PLANNED if node.defined else UNKNOWN
