"""How a step is told apart: a symbol and a word for each status, and a colour beside them."""

from __future__ import annotations

from typing import NamedTuple

from ..state import TaskStatus
from .graph import Node

__all__ = ["LOOKS", "PLANNED", "UNKNOWN", "Look", "look_of"]


class Look(NamedTuple):
    """How a status looks.

    Attributes:
        name: its name in style sheets and Mermaid classes.
        word: its name to a person.
        symbol: one cell wide.
        plain: the symbol in ASCII.
        style: its style on a terminal, as Rich writes it.
    """

    name: str
    word: str
    symbol: str
    plain: str
    style: str


LOOKS = {
    TaskStatus.COMPLETED: Look("completed", "completed", "✓", "+", "green"),
    TaskStatus.RUNNING: Look("running", "running", "▸", ">", "bright_blue"),
    TaskStatus.INPUT_REQUIRED: Look("input_required", "input required", "?", "?", "yellow"),
    TaskStatus.FAILED: Look("failed", "failed", "✗", "x", "bold red"),
    TaskStatus.CANCELED: Look("canceled", "canceled", "⊘", "/", "magenta"),
    TaskStatus.PENDING: Look("pending", "pending", "○", "o", "dim"),
}
"""In the order in which counts are shown."""

PLANNED = Look("planned", "not written yet", "·", ".", "dim")
"""A step of the definition that the run has no record of."""

UNKNOWN = Look("unknown", "unknown, in neither definition nor run", "!", "!", "bold red")
"""What a step depends on and nothing else tells of."""


def look_of(node: Node) -> Look:
    """Give the look of a node of a graph."""
    if node.step is not None:
        return LOOKS[node.step.status]
    return PLANNED if node.defined else UNKNOWN
