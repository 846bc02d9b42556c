"""A run on a terminal, as Mermaid and as a page; the page in a browser is tested separately."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from support.drawn_runs import BEGIN, NOW, at, defined, done, snapshot
from workflow_store import RunPage, RunSummary, TaskStatus
from workflow_store.rendering.graph import Edge, graph
from workflow_store.rendering.html import page
from workflow_store.rendering.mermaid import mermaid
from workflow_store.rendering.terminal import run_view, runs_table
from workflow_store.testing import a_step
from workflow_store.testing.samples import HOSTILE_IDENTIFIERS


def shown(picture: RenderableType, *, width: int = 80, encoding: str = "utf-8") -> str:
    """Give what a terminal of a width and an encoding gets, the ends of lines stripped."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    Console(file=file, width=width, force_terminal=False).print(picture)
    file.flush()
    return re.sub(" +$", "", raw.getvalue().decode(encoding), flags=re.MULTILINE)


# -- all of them -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        {}, {"steps": None}, {"steps": {}}, {"steps": []}, {"steps": ["a"]}, {"steps": [{}]},
        {"steps": [{"id": 1, "depends_on": ["a"]}]},
        {"steps": [{"id": "a", "depends_on": 1}]},
        {"steps": [{"id": "a", "depends_on": [["a"]]}]},
        {"steps": [{"id": "a"}, {"id": "a", "depends_on": ["a"]}]},
        {"steps": [{"id": "a"}, {"id": "b"}]},
    ],
)  # fmt: skip
def test_another_definition_has_no_graph(definition: dict[str, Any]) -> None:
    """And the pictures do without."""
    run = snapshot(done("a"), definition=definition)
    assert graph(run) is None
    assert mermaid(run).splitlines()[1] == '  n0["✓ a"]:::completed'
    assert "Dependencies" not in shown(run_view(run, NOW))
    assert "Dependencies" not in page(run, NOW)


@pytest.mark.slow
@pytest.mark.measured
@pytest.mark.parametrize(
    "needs",
    [
        {f"s{each}": [f"s{each - 1}"] for each in range(3000)},
        {f"s{each}": [f"s{(each + 1) % 3000}"] for each in range(3000)},
        {f"s{each}": [f"s{each ^ 1}"] for each in range(3000)},
        {f"s{each}": ["s0", "s1"] for each in range(3000)},
    ],
    ids=["a chain", "one cycle", "many cycles", "one layer"],
)
def test_thousands_of_steps_are_drawn(needs: dict[str, list[str]]) -> None:
    """Within the depth of Python's stack, and not in a time that grows with their square."""
    run = snapshot(*(done(each) for each in needs), definition=defined(**needs))
    assert len(mermaid(run).splitlines()) > 6000
    assert page(run, NOW).count('class="step"') == 3000
    assert shown(run_view(run, NOW)).count("✓ s2999") == 2


# -- Mermaid ---------------------------------------------------------------------------


def test_mermaid_has_the_statuses_and_the_dependencies() -> None:
    """Including unknown dependencies, steps that are not written, and cycles."""
    needs = {"a": [], "b": ["a", "ghost"], "c": ["c"]}
    run = snapshot(done("a"), a_step("b", status="running"), definition=defined(**needs))
    lines = mermaid(run).splitlines()
    assert lines[:8] == [
        "flowchart LR",
        '  n0["✓ a"]:::completed',
        '  n1["▸ b"]:::running',
        '  n2["· c"]:::planned',
        '  n3["! ghost"]:::unknown',
        "  n0 --> n1",
        "  n3 --> n1",
        '  n2 -. "cycle" .-> n2',
    ]
    assert [line.split()[1] for line in lines[8:]] == ["completed", "running", "planned", "unknown"]


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_no_id_breaks_out_of_its_label(step_id: str) -> None:
    """Nothing in it means anything to Mermaid."""
    source = mermaid(snapshot(definition={"steps": [{"id": step_id, "depends_on": step_id}]}))
    assert re.fullmatch(
        r'flowchart LR\n  n0\["· (?:[\w -]|#\d+;)+"\]:::planned\n  n0 -\. "cycle" \.-> n0\n'
        r"  classDef planned [^\n]+\n",
        source,
    )


# -- the terminal ----------------------------------------------------------------------


RUN = snapshot(
    done("plan", 0, 10),
    a_step(
        "search", status="failed", started_at=at(10), completed_at=at(30), error="no answer\nat all"
    ),
    a_step("approve", status="input_required", started_at=at(30), wait_task_id="task-1"),
    a_step("send", status="pending"),
    workspace_id="workspace",
    definition=defined(plan=[], search="plan", approve="search", send=["approve"], file=["send"]),
)


def test_a_run_reads_well_at_80_columns() -> None:
    """Symbols tell the statuses, without any colour."""
    assert shown(run_view(RUN, NOW)) == (
        """\
Run  run

agent      agent
thread     thread
user       user
workspace  workspace
created    2026-01-31 12:00:00 UTC  1 min ago
updated    2026-01-31 12:00:00 UTC  1 min ago

✓ 1 completed   ? 1 input required   ✗ 1 failed   ○ 1 pending

           0           30 s       1 min       1 min 30 s
✓ plan     ━━━━                                         10.0 s
✗ search       ━━━━━━━━                                 20.0 s  no answer
? approve              ╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍  1 min 10 s  waits for task-1
○ send                                                          after approve

Dependencies
1  ✓ plan
2  ✗ search   after plan
3  ? approve  after search
4  ○ send     after approve
5  · file     after send
   · not written yet
"""
    )


def test_an_ascii_terminal_gets_ascii() -> None:
    """In the data too: what the encoding lacks is escaped."""
    run = snapshot(done("é多" * 20, error="ü"), definition=defined(é=["ß"]))
    text = shown(run_view(run, NOW), encoding="ascii")
    assert "+ \\xe9\\u591a" in text
    assert "=====" in text
    assert "..." in text
    latin = shown(run_view(run, NOW), encoding="latin-1")
    assert "+ é\\u591a" in latin


@pytest.mark.parametrize("width", [20, 40, 63, 64, 80, 200])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_line_is_wider_than_the_console(width: int, encoding: str) -> None:
    """Whatever is in the run."""
    runs = [
        RUN,
        snapshot(),
        snapshot(a_step("no-times"), *(done(each, 0, 50) for each in HOSTILE_IDENTIFIERS)),
    ]
    for run in runs:
        for line in shown(run_view(run, NOW), width=width, encoding=encoding).splitlines():
            assert cell_len(line) <= width


def test_data_is_neither_markup_nor_control_on_a_terminal() -> None:
    """Rich's markup stays text, and an escape sequence is seen."""
    hostile = "[bold red]x[/] \x1b]0;title\x07 \u202e:smile:"
    step = a_step(hostile, status="failed", error=hostile, started_at=at(0), completed_at=at(1))
    run = snapshot(step, run_task_id=hostile, user_id=hostile, definition=defined(**{hostile: "b"}))
    text = shown(run_view(run, NOW), width=300)
    assert text.count(r"[bold red]x[/] \x1b]0;title\x07 \u202e:smile:") == 5
    assert text.replace("\n", "").isprintable()


def summary(run_task_id: str, **fields: Any) -> RunSummary:
    fields = {"agent_id": "agent", "thread_id": "thread", "user_id": "user", **fields}
    times = {"created_at": BEGIN, "updated_at": BEGIN}
    return RunSummary(run_task_id=run_task_id, **{**times, **fields})


def test_a_listing_has_columns_where_there_is_room_and_lines_elsewhere() -> None:
    """Ids are whole in both."""
    counts = {TaskStatus.COMPLETED: 12, TaskStatus.FAILED: 1}
    runs = [summary("r" * 30, step_counts=counts), summary("two", workspace_id="w")]
    table = runs_table(RunPage(runs, None), NOW)
    assert shown(table) == (
        "run                               age  agent  thread  user  workspace  steps\n"
        f"{'r' * 30}  1 min  agent  thread  user             ✓12 ✗1\n"
        "two                             1 min  agent  thread  user  w          no steps\n"
    )
    assert shown(table, width=40) == (
        f"{'r' * 30}\n1 min ago  ✓12 ✗1\n  agent agent  thread thread  user user\n"
        "two  1 min ago  no steps\n  agent agent  thread thread  user user\n  workspace w\n"
    )
    assert shown(runs_table(RunPage([], None), NOW)) == "No runs.\n"


# -- the page --------------------------------------------------------------------------


def test_the_page_asks_for_nothing_and_runs_nothing() -> None:
    """No script, no address, and a policy that forbids both."""
    text = page(RUN, NOW)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "<script" not in text
    assert not re.search(r"https?:|src=|url\((?!#)|@import|javascript:", text)
    assert set(re.findall(r'href="(.)', text)) == {"#"}


def test_the_page_holds_all_values_whole() -> None:
    """With their size, folded."""
    large = "x" * 300_000
    text = page(snapshot(done("a", result=[large]), input={"in": 1}, context=[]), NOW)
    assert large in text
    assert "300.0 kB" in text
    for name in ("Input", "Context", "Definition"):
        assert re.search(rf'<details class="value">\n<summary>{name} ', text)


def test_the_closing_edges_are_told_on_the_page() -> None:
    """A cycle is an error in the definition."""
    run = snapshot(definition=defined(a=["b"], b=["a"]))
    found = graph(run)
    assert found is not None
    assert found.closing == {Edge(0, 1)}
    assert "A cycle: b depends on a, which depends on b." in page(run, NOW)


def text_of(html: str) -> str:
    """Return the text of a page, with single spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split()).replace(" ,", ",")


def test_a_graph_that_is_too_large_to_draw_is_listed_by_layer() -> None:
    """As on a terminal; steps with the same dependencies share a line."""
    needs = {"start": [], **{f"s{n}": ["start"] for n in range(60)}, "end": ["s0", "s1", "end"]}
    small = {name: needs[name] for name in ("start", "s0", "s1", "end")}
    for definition, drawn in ((small, True), (needs, False)):
        html = page(snapshot(done("start"), definition=defined(**definition)), NOW)
        assert ("<svg" in html) is drawn
        assert ('<ol class="layers">' in html) is not drawn
    layers = text_of(html.partition('<ol class="layers">')[2].partition("</ol>")[0])
    middle = " ".join(f"· s{n}" for n in range(60))
    assert layers == f"1 ✓ start 2 {middle} after start 3 · end after s0, s1, end (a cycle)"
    assert html.count('<a href="#step-0">') == 1
    assert "A cycle: end depends on end, which depends on end." in html
