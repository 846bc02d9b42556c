"""A run as a Mermaid flowchart, for a README, an issue or a chat that draws them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..store import RunSnapshot
from .escaping import visible
from .graph import Graph, Node, graph
from .status_styles import LOOKS, PLANNED, UNKNOWN, Look, look_of

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
_MAY_MEAN_SOMETHING = re.compile(r"[^\w -]")


def mermaid(snapshot: RunSnapshot) -> str:
    """Draw the steps of a run, and what depends on what where its definition tells.

    A node has its status as a symbol and as a class. An id cannot end its label: all in it
    but letters, digits, spaces, `_` and `-` is written as Mermaid's entity codes.

    Args:
        snapshot: the run and its steps.

    Returns:
        The source of a flowchart, of several lines, the last one ended. A dependency that
        closes a circle is dotted and says so. Mermaid itself draws, as it is set by default,
        up to 500 dependencies and 50,000 characters.
    """
    found = graph(snapshot)
    if found is None:
        steps = [Node(step.step_id, step, False, (), 0) for step in snapshot.steps]
        found = Graph(steps, frozenset())
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Graph) -> Iterator[str]:
    yield "flowchart LR"
    used: set[Look] = set()
    for position, node in enumerate(found.nodes):
        look = look_of(node)
        used.add(look)
        yield f'  n{position}["{look.symbol} {_label(node.step_id)}"]:::{look.name}'
    for edge in found.edges():
        arrow = '-. "circle" .->' if edge in found.closing else "-->"
        yield f"  n{edge.before} {arrow} n{edge.after}"
    for look in (*LOOKS.values(), PLANNED, UNKNOWN):
        if look in used:
            yield f"  classDef {look.name} {_CLASSES[look.name]}"


def _label(text: str) -> str:
    return _MAY_MEAN_SOMETHING.sub(lambda found: f"#{ord(found[0])};", visible(text))
