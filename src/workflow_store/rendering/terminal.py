"""Pictures for a terminal, with Rich.

They adapt to the width of the console and to what its encoding has, and tell a status by a
symbol beside its colour.
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

from ..state import RunSummary, TaskStatus, WorkflowExecutionState
from ..store import RunPage, RunSnapshot
from .console import Flow, Pen
from .graph import Edge, Graph, Node, graph
from .status_styles import LOOKS, PLANNED, UNKNOWN, Look, look_of
from .timeline import Bar, Timeline, clock, coarse, human, timeline

__all__ = ["run_picture", "runs_table"]

_NARROW = 64
"""Below so many columns, a step's note has a line of its own."""


def run_picture(snapshot: RunSnapshot, now: datetime) -> RenderableType:
    """Draw a run: its ids, times and counts, its steps in time, and what depends on what.

    Args:
        snapshot: the run and its steps.
        now: the present, aware; a step that has not ended goes on until then.
    """
    return _RunPicture(snapshot, now)


def runs_table(page: RunPage, now: datetime) -> RenderableType:
    """Draw a page of a listing, each run in the order of the page, its id whole.

    Args:
        page: the page; its cursor is not drawn.
        now: the present, aware, from which ages are counted.
    """
    return _RunsTable(page, now)


def _ago(moment: datetime, now: datetime) -> str:
    return f"{coarse(now - moment)} ago" if moment <= now else f"in {coarse(moment - now)}"


def _id_style(look: Look) -> str:
    """What is done is plain, so that the rest can be seen."""
    return "" if look is LOOKS[TaskStatus.COMPLETED] else look.style


# -- a run -----------------------------------------------------------------------------


class _RunPicture:
    def __init__(self, snapshot: RunSnapshot, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        self._graph = graph(snapshot)
        self._timeline = timeline(snapshot, now, self._graph)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pen = Pen(options)
        yield _head(pen, self._snapshot.run, self._timeline, self._now)
        if self._timeline.bars:
            yield ""
            yield from _timeline_lines(pen, self._timeline)
        if self._graph is not None:
            yield ""
            yield Text("Dependencies", style="bold")
            yield _dependencies(pen, self._graph)


def _head(pen: Pen, run: WorkflowExecutionState, times: Timeline, now: datetime) -> Group:
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
            facts.add_row(name, pen.text(value))
    for name, moment in (("created", run.created_at), ("updated", run.updated_at)):
        facts.add_row(name, Text.assemble(clock(moment), (f"  {_ago(moment, now)}", "dim")))
    return Group(
        Text.assemble(("Run  ", "dim"), pen.text(run.run_task_id, "bold"), overflow="fold"),
        "",
        facts,
        "",
        Flow(pen.counts(Counter(bar.step.status for bar in times.bars), words=True), "   "),
    )


# -- its steps in time -----------------------------------------------------------------


def _timeline_lines(pen: Pen, times: Timeline) -> Iterator[RenderableType]:
    """Give a line for the axis and one for each step: symbol, id, bar, duration, note."""
    notes = ["; ".join(filter(None, (bar.note, bar.error_line))) for bar in times.bars]
    took = [human(bar.took) if bar.took is not None else "" for bar in times.bars]
    longest_id = max(cell_len(pen.text(bar.step.step_id).plain) for bar in times.bars)
    longest_note = max(cell_len(pen.text(note).plain) for note in notes)
    beside = pen.width >= _NARROW and longest_note > 0

    id_width = min(longest_id, pen.width * 3 // 10)
    took_width = max(map(len, took))
    left = pen.width - id_width - took_width - 6
    note_width = min(longest_note, left * 11 // 20) if beside else 0
    bar_width = max(left - (note_width + 2 if beside else 0), 1)

    if times.begin is not None:
        axis = _axis(times, bar_width, beyond=took_width)
        yield Text(" " * (id_width + 4)).append_text(axis)
    for bar, duration, note in zip(times.bars, took, notes, strict=True):
        look = LOOKS[bar.step.status]
        step_id = pen.text(bar.step.step_id, _id_style(look), width=id_width)
        line = Text.assemble(
            pen.symbol(look), " ", step_id, " " * (id_width - step_id.cell_len + 2),
            _drawn(pen, times, bar, bar_width), f"  {duration:>{took_width}}",
            no_wrap=True, overflow="crop",
        )  # fmt: skip
        if beside and note:
            line.append("  ")
            line.append_text(pen.text(note, "red" if bar.step.error else "", width=note_width))
        line.rstrip()
        yield line
        if note and not beside:
            yield Text("    ").append_text(pen.text(note, "dim", width=max(pen.width - 4, 1)))


def _axis(times: Timeline, width: int, *, beyond: int) -> Text:
    """Write the labels of the ticks, each from its moment on; the last may go beyond the bars."""
    line = ""
    for tick in times.ticks(max(width // 9, 1)):
        at = round(tick.at * width)
        if (not line or at > len(line)) and at + len(tick.label) <= width + beyond:
            line = f"{line:<{at}}{tick.label}"
    return Text(line, style="dim", no_wrap=True, overflow="crop")


def _drawn(pen: Pen, times: Timeline, bar: Bar, width: int) -> Text:
    if bar.begin is None or bar.end is None:
        return Text(" " * width)
    first = min(round(times.at(bar.begin) * width), width - 1)
    size = max(round(times.at(bar.end) * width) - first, 1)
    mark = pen.either("╍", "~") if bar.goes_on else pen.either("━", "=")
    return Text.assemble(
        " " * first, (mark * size, LOOKS[bar.step.status].style), " " * (width - first - size)
    )


# -- what depends on what --------------------------------------------------------------


def _dependencies(pen: Pen, found: Graph) -> Group:
    """List the steps by layer; those that depend on the same ones share a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for number, layer in enumerate(found.layers(), start=1):
        groups: dict[tuple[tuple[int, bool], ...], list[Node]] = {}
        for position in layer:
            node = found.nodes[position]
            needs = tuple((need, Edge(need, position) in found.closing) for need in node.needs)
            groups.setdefault(needs, []).append(node)
        for index, (needs, nodes) in enumerate(groups.items()):
            table.add_row(
                "" if index else str(number),
                Flow(_named(pen, node) for node in nodes),
                Flow(_needed(pen, [(found.nodes[need], closes) for need, closes in needs]), " "),
            )
    shown = {look_of(node) for node in found.nodes}
    legend = [
        Text.assemble("   ", pen.symbol(look), (f" {look.word}", "dim"))
        for look in (PLANNED, UNKNOWN)
        if look in shown
    ]
    return Group(table, *legend)


def _named(pen: Pen, node: Node) -> Text:
    look = look_of(node)
    named = Text.assemble(pen.symbol(look), " ", pen.text(node.step_id, _id_style(look)))
    if node.step is not None and not node.defined:
        named.append(" (not in the definition)", style="dim")
    return named


def _needed(pen: Pen, needs: list[tuple[Node, bool]]) -> Iterator[Text]:
    for index, (node, closes) in enumerate(needs):
        yield Text.assemble(
            ("" if index else "after ", "dim"),
            pen.text(node.step_id),
            (" (a circle)" if closes else "", "bold red"),
            ("," if index < len(needs) - 1 else "", "dim"),
        )


# -- a listing -------------------------------------------------------------------------


class _RunsTable:
    def __init__(self, page: RunPage, now: datetime) -> None:
        self._runs = page.runs
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        pen = Pen(options)
        if not self._runs:
            yield Text("No runs.", style="dim")
            return
        table = self._in_columns(pen)
        if console.measure(table, options=options.update(max_width=100_000)).maximum <= pen.width:
            yield table
            return
        for run in self._runs:
            yield from self._in_lines(pen, run)

    def _in_columns(self, pen: Pen) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("run", style="bold", no_wrap=True)
        table.add_column("age", justify="right", no_wrap=True)
        for name in ("agent", "thread", "user", "workspace", "steps"):
            table.add_column(name, no_wrap=True)
        for run in self._runs:
            table.add_row(
                pen.text(run.run_task_id),
                coarse(self._now - run.created_at),
                pen.text(run.agent_id),
                pen.text(run.thread_id),
                pen.text(run.user_id),
                pen.text(run.workspace_id or ""),
                Text(" ").join(pen.counts(run.step_counts, words=False)),
            )
        return table

    def _in_lines(self, pen: Pen, run: RunSummary) -> Iterator[RenderableType]:
        yield Flow(
            [
                pen.text(run.run_task_id, "bold"),
                Text(_ago(run.created_at, self._now), style="dim"),
                Text(" ").join(pen.counts(run.step_counts, words=False)),
            ]
        )
        facts = Flow(
            Text.assemble((f"{name} ", "dim"), pen.text(value))
            for name, value in (
                ("agent", run.agent_id),
                ("thread", run.thread_id),
                ("user", run.user_id),
                ("workspace", run.workspace_id),
            )
            if value is not None
        )
        yield Padding(facts, (0, 0, 0, 2))
