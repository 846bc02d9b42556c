"""A run as one HTML page that needs nothing else: no script, no network, no build.

It goes through Jinja with autoescape; besides, all text that it writes is made visible, so
nothing of a state can be markup, reorder the text around it, or be what UTF-8 does not take.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ..state import JsonValue, WorkflowStepState
from ..store import RunSnapshot
from .escaping import pretty, visible
from .graph import Graph, Node, graph
from .graph_layout import MOST_ARROWS, MOST_NODES, draw
from .status_styles import LOOKS, Look, look_of
from .timeline import Bar, Timeline, clock, human, timeline

__all__ = ["page"]

_OPEN_UP_TO_BYTES = 2_000
"""A value of a step that is larger than this is folded a second time."""


def page(snapshot: RunSnapshot, now: datetime) -> str:
    """Draw a run as an HTML page: its steps in time, what depends on what, and all its values.

    Each value is there whole, folded. The page is light or dark as the reader's system is.

    Args:
        snapshot: the run and its steps.
        now: the present, aware; a step that has not ended goes on until then.

    Returns:
        The page, to be written in UTF-8.
    """
    run = snapshot.run
    found = graph(snapshot)
    times = timeline(snapshot, now, found)
    return _template().render(
        run=run,
        now=now,
        facts=[
            ("Agent", run.agent_id),
            ("Thread", run.thread_id),
            ("User", run.user_id),
            ("Workspace", run.workspace_id),
            ("Entry point", run.entry_point),
        ],
        counts=_counts(snapshot.steps),
        times=times,
        rows=_rows(times, found),
        planned=_planned(found),
        graph=found,
        drawing=draw(found) if found is not None else None,
        too_large=f"more than {MOST_NODES:,} steps or {MOST_ARROWS:,} dependencies",
        anchors={step.step_id: f"step-{at}" for at, step in enumerate(snapshot.steps)},
        circles=_circles(found),
        values=[
            _value("Input", run.input),
            _value("Context", run.context),
            _value("Definition", run.definition),
        ],
    )


# -- what the template shows -----------------------------------------------------------


@dataclass(frozen=True)
class _Value:
    """A value as text, and how much there is of it."""

    name: str
    text: str
    size: int
    is_short: bool


@dataclass(frozen=True)
class _Row:
    """A step on the page."""

    bar: Bar
    look: Look
    left: str
    width: str
    took: str
    needs: list[Node]
    values: list[_Value]


def _value(name: str, value: JsonValue) -> _Value:
    return _text_value(name, pretty(value))


def _text_value(name: str, text: str) -> _Value:
    size = len(text.encode())
    return _Value(name, text, size, size <= _OPEN_UP_TO_BYTES)


def _counts(steps: list[WorkflowStepState]) -> list[tuple[Look, int]]:
    counts = Counter(step.status for step in steps)
    return [(look, counts[status]) for status, look in LOOKS.items() if counts[status]]


def _rows(times: Timeline, found: Graph | None) -> list[_Row]:
    nodes = {node.step_id: node for node in found.nodes} if found is not None else {}
    return [_row(times, bar, found, nodes.get(bar.step.step_id)) for bar in times.bars]


def _row(times: Timeline, bar: Bar, found: Graph | None, node: Node | None) -> _Row:
    step = bar.step
    values = []
    if step.error is not None:
        values.append(_text_value("Error", visible(step.error, lines=True)))
    if step.result is not None:
        values.append(_value("Result", step.result))
    left = times.at(bar.begin) if bar.begin else 0.0
    width = times.at(bar.end) - left if bar.end else 0.0
    return _Row(
        bar=bar,
        look=LOOKS[step.status],
        left=f"{left:.3%}",
        width=f"{width:.3%}",
        took=human(bar.took) if bar.took is not None else "",
        needs=[found.nodes[need] for need in node.needs] if found and node else [],
        values=values,
    )


def _planned(found: Graph | None) -> list[tuple[Look, Node, str]]:
    """Give what the run has no record of, and what it depends on."""
    if found is None:
        return []
    return [
        (look_of(node), node, ", ".join(found.nodes[need].step_id for need in node.needs))
        for node in found.nodes
        if node.step is None
    ]


def _circles(found: Graph | None) -> list[tuple[str, str]]:
    """Give the dependencies that close a circle: what depends, and on what."""
    if found is None:
        return []
    ids = [node.step_id for node in found.nodes]
    return [(ids[edge.after], ids[edge.before]) for edge in sorted(found.closing)]


# -- the template ----------------------------------------------------------------------


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = visible
    environment.filters["clock"] = clock
    environment.filters["look"] = look_of
    environment.filters["human"] = human
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """Let nothing onto the page that is invisible, whatever the template forgets."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, lines=True)
    return value
