"""Runs and listings on a terminal, rendered with Rich.

The output adapts to the width and the encoding of the console. A status is shown by a symbol as
well as a colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..formatting import coarse_duration
from ..state import RunSummary, TaskStatus, WorkflowExecutionState
from ..store import RunPage, RunSnapshot
from .console import ConsoleText, WrappedRow
from .graph import Graph, Node, graph
from .status_styles import PLANNED, STATUS_STYLES, UNKNOWN, StatusStyle, style_of
from .timeline import Bar, Timeline, format_duration, format_time, timeline

__all__ = ["run_view", "runs_table"]

_NARROW = 64
"""On a narrower console, the note of a step has a line of its own."""


def run_view(snapshot: RunSnapshot, now: datetime) -> RenderableType:
    """Return the view of a run: its ids, times and counts, its timeline and its dependencies.

    Args:
        snapshot: the run and its steps.
        now: the current time, aware; the bar of a step that has not ended extends to it.
    """
    return _RunView(snapshot, now)


def runs_table(page: RunPage, now: datetime) -> RenderableType:
    """Return the table of a page of runs. Ids are never cut.

    Args:
        page: the page; its cursor is not shown.
        now: the current time, aware, for the ages of the runs.
    """
    return _RunsTable(page, now)


def _age(time: datetime, now: datetime) -> str:
    return coarse_duration((now - time).total_seconds())


def _relative_time(time: datetime, now: datetime) -> str:
    return f"{_age(time, now)} ago" if time <= now else f"in {_age(now, time)}"


def _id_style(style: StatusStyle) -> str:
    """Completed steps have no style, so that the others stand out."""
    return "" if style is STATUS_STYLES[TaskStatus.COMPLETED] else style.rich_style


# -- a run -----------------------------------------------------------------------------


class _RunView:
    def __init__(self, snapshot: RunSnapshot, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        self._graph = graph(snapshot)
        self._timeline = timeline(snapshot, now, self._graph)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fmt = ConsoleText(options)
        yield _head(fmt, self._snapshot.run, self._timeline, self._now)
        if self._timeline.bars:
            yield ""
            yield from _timeline_lines(fmt, self._timeline)
        if self._graph is not None:
            yield ""
            yield Text("Dependencies", style="bold")
            yield _dependencies(fmt, self._graph)


def _head(fmt: ConsoleText, run: WorkflowExecutionState, times: Timeline, now: datetime) -> Group:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in (
        ("agent", run.agent_id),
        ("thread", run.thread_id),
        ("user", run.user_id),
        ("workspace", run.workspace_id),
        ("entry point", run.entry_point),
    ):
        if value is not None:
            facts.add_row(name, fmt.text(value))
    for name, time in (("created", run.created_at), ("updated", run.updated_at)):
        facts.add_row(
            name, Text.assemble(format_time(time), (f"  {_relative_time(time, now)}", "dim"))
        )
    return Group(
        Text.assemble(("Run  ", "dim"), fmt.text(run.run_task_id, "bold"), overflow="fold"),
        "",
        facts,
        "",
        WrappedRow(fmt.counts(Counter(bar.step.status for bar in times.bars), labels=True), "   "),
    )


# -- the timeline ----------------------------------------------------------------------


def _timeline_lines(fmt: ConsoleText, times: Timeline) -> Iterator[RenderableType]:
    """Yield a line for the axis and one for each step: symbol, id, bar, duration, note."""
    notes = ["; ".join(filter(None, (bar.note, bar.error_line))) for bar in times.bars]
    took = ["" if bar.took is None else format_duration(bar.took) for bar in times.bars]
    longest_id = max(cell_len(fmt.text(bar.step.step_id).plain) for bar in times.bars)
    longest_note = max(cell_len(fmt.text(note).plain) for note in notes)
    beside = fmt.width >= _NARROW and longest_note > 0

    id_width = min(longest_id, fmt.width * 3 // 10)
    took_width = max(map(len, took))
    left = fmt.width - id_width - took_width - 6
    note_width = min(longest_note, left * 11 // 20) if beside else 0
    bar_width = max(left - (note_width + 2 if beside else 0), 1)

    if times.begin is not None:
        axis = _axis(times, bar_width, beyond=took_width)
        yield Text(" " * (id_width + 4)).append_text(axis)
    for bar, took_text, note in zip(times.bars, took, notes, strict=True):
        style = STATUS_STYLES[bar.step.status]
        step_id = fmt.text(bar.step.step_id, _id_style(style), width=id_width)
        line = Text.assemble(
            fmt.symbol(style), " ", step_id, " " * (id_width - step_id.cell_len + 2),
            _bar(fmt, times, bar, bar_width), f"  {took_text:>{took_width}}",
            no_wrap=True, overflow="crop",
        )  # fmt: skip
        if beside and note:
            line.append("  ")
            line.append_text(fmt.text(note, "red" if bar.step.error else "", width=note_width))
        line.rstrip()
        yield line
        if note and not beside:
            yield Text("    ").append_text(fmt.text(note, "dim", width=max(fmt.width - 4, 1)))


def _axis(times: Timeline, width: int, *, beyond: int) -> Text:
    """Return the labels of the ticks; the last may extend `beyond` the bars."""
    line = ""
    for tick in times.ticks(max(width // 9, 1)):
        at = round(tick.at * width)
        if (not line or at > len(line)) and at + len(tick.label) <= width + beyond:
            line = f"{line:<{at}}{tick.label}"
    return Text(line, style="dim", no_wrap=True, overflow="crop")


def _bar(fmt: ConsoleText, times: Timeline, bar: Bar, width: int) -> Text:
    if bar.begin is None or bar.end is None:
        return Text(" " * width)
    first = min(round(times.at(bar.begin) * width), width - 1)
    size = max(round(times.at(bar.end) * width) - first, 1)
    mark = fmt.pick("╍", "~") if bar.is_open else fmt.pick("━", "=")
    return Text.assemble(
        " " * first,
        (mark * size, STATUS_STYLES[bar.step.status].rich_style),
        " " * (width - first - size),
    )


# -- the dependencies ------------------------------------------------------------------


def _dependencies(fmt: ConsoleText, dependencies: Graph) -> Group:
    """List the steps by layer; steps with the same dependencies share a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    previous_layer = 0
    for layer, nodes, needs in dependencies.siblings():
        table.add_row(
            "" if layer == previous_layer else str(layer),
            WrappedRow(_node(fmt, node) for node in nodes),
            WrappedRow(_needs(fmt, needs), " "),
        )
        previous_layer = layer
    styles = {style_of(node) for node in dependencies.nodes}
    legend = [
        Text.assemble("   ", fmt.symbol(style), (f" {style.label}", "dim"))
        for style in (PLANNED, UNKNOWN)
        if style in styles
    ]
    return Group(table, *legend)


def _node(fmt: ConsoleText, node: Node) -> Text:
    style = style_of(node)
    step_id = fmt.text(node.step_id, _id_style(style))
    text = Text.assemble(fmt.symbol(style), " ", step_id)
    if node.step is not None and not node.defined:
        text.append(" (not in the definition)", style="dim")
    return text


def _needs(fmt: ConsoleText, needs: list[tuple[Node, bool]]) -> Iterator[Text]:
    for index, (node, closes) in enumerate(needs):
        yield Text.assemble(
            ("" if index else "after ", "dim"),
            fmt.text(node.step_id),
            (" (a cycle)" if closes else "", "bold red"),
            ("," if index < len(needs) - 1 else "", "dim"),
        )


# -- a listing -------------------------------------------------------------------------


class _RunsTable:
    def __init__(self, page: RunPage, now: datetime) -> None:
        self._runs = page.runs
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fmt = ConsoleText(options)
        if not self._runs:
            yield Text("No runs.", style="dim")
            return
        table = self._in_columns(fmt)
        if console.measure(table, options=options.update(max_width=100_000)).maximum <= fmt.width:
            yield table
            return
        for run in self._runs:
            yield from self._in_lines(fmt, run)

    def _in_columns(self, fmt: ConsoleText) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("run", style="bold", no_wrap=True)
        table.add_column("age", justify="right", no_wrap=True)
        for name in ("agent", "thread", "user", "workspace", "steps"):
            table.add_column(name, no_wrap=True)
        for run in self._runs:
            table.add_row(
                fmt.text(run.run_task_id),
                _age(run.created_at, self._now),
                fmt.text(run.agent_id),
                fmt.text(run.thread_id),
                fmt.text(run.user_id),
                fmt.text(run.workspace_id or ""),
                Text(" ").join(fmt.counts(run.step_counts, labels=False)),
            )
        return table

    def _in_lines(self, fmt: ConsoleText, run: RunSummary) -> Iterator[RenderableType]:
        yield WrappedRow(
            [
                fmt.text(run.run_task_id, "bold"),
                Text(_relative_time(run.created_at, self._now), style="dim"),
                Text(" ").join(fmt.counts(run.step_counts, labels=False)),
            ]
        )
        facts = WrappedRow(
            Text.assemble((f"{name} ", "dim"), fmt.text(value))
            for name, value in (
                ("agent", run.agent_id),
                ("thread", run.thread_id),
                ("user", run.user_id),
                ("workspace", run.workspace_id),
            )
            if value is not None
        )
        yield Padding(facts, (0, 0, 0, 2))
