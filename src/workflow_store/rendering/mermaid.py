"""A run as a Mermaid flowchart, for a README, an issue or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..store import RunSnapshot
from .escaping import escape_invisible
from .graph import Graph, Node, graph
from .status_styles import PLANNED, STATUS_STYLES, UNKNOWN, StatusStyle, style_of

__all__ = ["mermaid"]

_CLASSES = {
    "completed": "fill:#e3f5ea,stroke:#1a7f4b,color:#10331f",
    "running": "fill:#e4eefc,stroke:#1f63d6,color:#122c5c",
    "input_required": "fill:#fdf0d8,stroke:#9a5b00,color:#4a2c00,stroke-width:2px",
    "failed": "fill:#fde6e6,stroke:#c4292f,color:#5c1215,stroke-width:2px",
    "canceled": "fill:#f0eaf5,stroke:#76528c,color:#3a2846",
    "pending": "fill:#f1f3f5,stroke:#5f6873,color:#2a2f36",
    "planned": "fill:#ffffff,stroke:#8b929b,color:#4b525b,stroke-dasharray:4 3",
    "unknown": "fill:#ffffff,stroke:#c4292f,color:#5c1215,stroke-dasharray:2 3",
}
_SPECIAL = re.compile(r"[^\w -]")


def mermaid(snapshot: RunSnapshot) -> str:
    """Return the flowchart of a run: its steps, and their dependencies if the definition has any.

    Each node shows its status by a symbol and a class. In its label, all characters except
    letters, digits, spaces, `_` and `-` are written as entity codes, so an id cannot end it:
    https://mermaid.js.org/syntax/flowchart.html#entity-codes-to-escape-characters

    Args:
        snapshot: the run and its steps.

    Returns:
        The source of the flowchart. An edge that closes a cycle is dotted and labelled. With its
        default settings, Mermaid draws up to 500 edges and 50,000 characters.
    """
    dependencies = graph(snapshot)
    if dependencies is None:
        steps = [Node(step.step_id, step, False, (), 0) for step in snapshot.steps]
        dependencies = Graph(steps, frozenset())
    return "\n".join(_lines(dependencies)) + "\n"


def _lines(dependencies: Graph) -> Iterator[str]:
    yield "flowchart LR"
    used: set[StatusStyle] = set()
    for position, node in enumerate(dependencies.nodes):
        style = style_of(node)
        used.add(style)
        yield f'  n{position}["{style.symbol} {_label(node.step_id)}"]:::{style.css_class}'
    for edge in dependencies.edges():
        arrow = '-. "cycle" .->' if edge in dependencies.closing else "-->"
        yield f"  n{edge.before} {arrow} n{edge.after}"
    for style in (*STATUS_STYLES.values(), PLANNED, UNKNOWN):
        if style in used:
            yield f"  classDef {style.css_class} {_CLASSES[style.css_class]}"


def _label(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"#{ord(match[0])};", escape_invisible(text))
