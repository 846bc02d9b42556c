"""A run as a self-contained HTML page, without scripts or network requests.

Jinja escapes all markup. Invisible characters and lone surrogates are escaped, too, so no value
of a run can become markup, reorder the text around it, or fail to encode as UTF-8.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ..store import RunSnapshot
from .escaping import escape_invisible, pretty_json
from .graph import Node, graph
from .graph_layout import layout
from .status_styles import STATUS_STYLES, StatusStyle, style_of
from .timeline import Bar, Timeline, format_duration, format_time, timeline

__all__ = ["page"]

_OPEN_UP_TO_BYTES = 2_000
"""Larger values of a step stay folded when the step is unfolded."""


def page(snapshot: RunSnapshot, now: datetime) -> str:
    """Return a run as an HTML page: its timeline, its dependencies and all its values.

    Values are complete, and folded. The page follows the reader's light or dark colour scheme.
    The dependencies are drawn as a graph; above 60 steps or 400 edges, they are listed by layer.

    Args:
        snapshot: the run and its steps.
        now: the current time, aware; the bar of a step that has not ended extends to it.

    Returns:
        The page, to be encoded as UTF-8.
    """
    run = snapshot.run
    counts = Counter(step.status for step in snapshot.steps)
    dependencies = graph(snapshot)
    nodes = dependencies.nodes if dependencies else []
    needs = {node.step_id: [nodes[need] for need in node.needs] for node in nodes}
    closing = sorted(dependencies.closing) if dependencies else []
    times = timeline(snapshot, now, dependencies)
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
        counts=[
            (style, counts[status]) for status, style in STATUS_STYLES.items() if counts[status]
        ],
        times=times,
        rows=[_row(times, bar, needs.get(bar.step.step_id, [])) for bar in times.bars],
        planned=[
            (style_of(node), node, ", ".join(need.step_id for need in needs[node.step_id]))
            for node in nodes
            if node.step is None
        ],
        graph=dependencies,
        drawing=None if dependencies is None else layout(dependencies),
        anchors={step.step_id: f"step-{at}" for at, step in enumerate(snapshot.steps)},
        cycles=[(nodes[edge.after].step_id, nodes[edge.before].step_id) for edge in closing],
        values=[
            _value("Input", pretty_json(run.input)),
            _value("Context", pretty_json(run.context)),
            _value("Definition", pretty_json(run.definition)),
        ],
    )


# -- the variables of the template -----------------------------------------------------


@dataclass(frozen=True)
class _Value:
    """A value as text, and its size in bytes."""

    name: str
    text: str
    size: int
    is_short: bool


@dataclass(frozen=True)
class _Row:
    """A step of the timeline."""

    bar: Bar
    style: StatusStyle
    left: str
    width: str
    took: str
    needs: list[Node]
    values: list[_Value]


def _value(name: str, text: str) -> _Value:
    size = len(text.encode())
    return _Value(name, text, size, size <= _OPEN_UP_TO_BYTES)


def _row(times: Timeline, bar: Bar, needs: list[Node]) -> _Row:
    step = bar.step
    values = []
    if step.error is not None:
        values.append(_value("Error", escape_invisible(step.error, lines=True)))
    if step.result is not None:
        values.append(_value("Result", pretty_json(step.result)))
    left = times.at(bar.begin) if bar.begin else 0.0
    width = times.at(bar.end) - left if bar.end else 0.0
    return _Row(
        bar=bar,
        style=STATUS_STYLES[step.status],
        left=f"{left:.3%}",
        width=f"{width:.3%}",
        took="" if bar.took is None else format_duration(bar.took),
        needs=needs,
        values=values,
    )


# -- the template ----------------------------------------------------------------------


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = escape_invisible
    environment.filters["time"] = format_time
    environment.filters["style"] = style_of
    environment.filters["duration"] = format_duration
    return environment.get_template("page.html")


def _finalize(value: Any) -> Any:
    """Escape invisible characters, even if the template applies no filter."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return escape_invisible(value, lines=True)
    return value
