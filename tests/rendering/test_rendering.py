"""What the pictures of a run show: text, times and dependencies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.drawn_runs import NOW, at, defined, done, snapshot
from workflow_store import WorkflowStepState, json_codec
from workflow_store.formatting import coarse_duration, duration
from workflow_store.rendering.escaping import escape_invisible, pretty_json
from workflow_store.rendering.graph import Graph, graph
from workflow_store.rendering.graph_layout import MAX_EDGES, MAX_NODES, layout
from workflow_store.rendering.timeline import Bar, timeline
from workflow_store.testing import a_step
from workflow_store.testing.samples import HOSTILE_VALUES, exact

# -- text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 多 😀 \\ \"'", "plain é 多 😀 \\ \"'"),
        ("\x1b[31m\x9b31m\x07\x7f", r"\x1b[31m\x9b31m\x07\x7f"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\u202eabc\u2066\u200b\u200d\ufeff", r"\u202eabc\u2066\u200b\u200d\ufeff"),
        ("\u2028\u2029\xa0\xad", r"\u2028\u2029\xa0\xad"),
        ("\ud800 \udfff \uffff \U0010ffff", r"\ud800 \udfff \uffff \U0010ffff"),
        ("a\ufe0f\u3164\u115f\U000e0041\U000e0100", r"a\ufe0f\u3164\u115f\U000e0041\U000e0100"),
    ],
)
def test_what_would_not_show_is_shown_as_an_escape(text: str, shown: str) -> None:
    """And what shows stays."""
    assert escape_invisible(text) == shown


def test_lines_stay_lines_where_there_may_be_many() -> None:
    """A carriage return, which would overwrite a line, is none."""
    assert escape_invisible("a\n\tb\r\n\x0bc", lines=True) == "a\n\tb\\r\n\\x0bc"


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_printable_once_it_is_visible(text: str) -> None:
    """So it holds no terminal control, and any UTF-8 encoder takes it."""
    assert escape_invisible(text).isprintable()
    assert escape_invisible(text, lines=True).replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES)
def test_a_value_is_shown_as_json_of_itself(value: Any) -> None:
    """It can be copied from a page and read again."""
    shown = pretty_json(value)
    assert shown.replace("\n", "").isprintable()
    assert exact(json_codec.decode(shown)) == exact(value)


def test_what_is_short_stays_on_one_line() -> None:
    """So that a list of ids reads as one."""
    assert pretty_json({"id": "a", "needs": ["b", "c"], "empty": {}}) == (
        '{"id": "a", "needs": ["b", "c"], "empty": {}}'
    )
    assert pretty_json({"text": "x" * 70, "steps": [1, 2]}) == (
        '{\n  "text": "' + "x" * 70 + '",\n  "steps": [1, 2]\n}'
    )


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"), (0.000_04, "0.04 ms"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (1.24, "1.2 s"),
        (59.94, "59.9 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min"),
        (3 * 3600 + 60, "3 h 01 min"), (86_399, "1 d 0 h"), (2 * 86_400 + 4 * 3600, "2 d 4 h"),
        (400 * 86_400, "400 d 0 h"), (-185, "-3 min 05 s"),
    ],
)  # fmt: skip
def test_a_duration_is_written_as_a_person_does(seconds: float, written: str) -> None:
    """In one or two units."""
    assert duration(seconds) == written


def test_an_age_has_one_unit() -> None:
    """Cut, as a birthday is."""
    ages = (0.5, 59.9, 61, 7199, 86_400 * 3.9, -61)
    assert [coarse_duration(age) for age in ages] == [
        "0 s", "59 s", "1 min", "1 h", "3 d", "-1 min",
    ]  # fmt: skip


# -- the timeline ----------------------------------------------------------------------


def bar(**fields: Any) -> Bar:
    (only,) = timeline(snapshot(a_step(**fields)), NOW, None).bars
    return only


@pytest.mark.parametrize(
    ("fields", "begin", "end", "took", "note"),
    [
        ({"status": "completed", "started_at": at(1), "completed_at": at(3)}, 1, 3, 2, ""),
        ({"status": "running", "started_at": at(60)}, 60, 100, 40, ""),
        (
            {"status": "input_required", "started_at": at(60), "wait_task_id": "task"},
            60, 100, 40, "waits for task",
        ),
        ({"status": "input_required"}, None, None, None, "waits for input"),
        ({"status": "pending", "wait_task_id": "task"}, None, None, None, "waits for task"),
        ({"status": "completed", "wait_task_id": "task"}, None, None, None, ""),
        (
            {"status": "completed", "started_at": at(5), "completed_at": at(3)},
            5, 5, None, "ended 2.0 s before it started",
        ),
        (
            {"status": "failed", "started_at": at(5)},
            5, 5, None, "failed at an unknown time",
        ),
        (
            {"status": "failed", "completed_at": at(5)},
            5, 5, None, "has an end time but no start time",
        ),
        (
            {"status": "running", "started_at": at(1), "completed_at": at(3)},
            1, 3, 2, "has an end time, but its status is running",
        ),
        (
            {"status": "running", "started_at": at(160)},
            160, 160, None, "starts in 1 min 00 s by this computer's clock",
        ),
    ],
)  # fmt: skip
def test_a_bar_goes_from_start_to_end_or_to_now(
    fields: dict[str, Any], begin: float | None, end: float | None, took: float | None, note: str
) -> None:
    """What is odd about the times is told, and has no duration that would be made up."""
    found = bar(**fields)
    assert found.begin == (None if begin is None else at(begin))
    assert found.end == (None if end is None else at(end))
    assert found.took == (None if took is None else timedelta(seconds=took))
    assert found.note == note


def test_the_axis_holds_all_bars_and_begins_with_the_run() -> None:
    """Round times are marked on it."""
    times = timeline(snapshot(done("a", 10, 20), done("b", 15, 50)), NOW, None)
    assert (times.begin, times.end) == (at(0), at(50))
    assert times.at(at(25)) == 0.5
    assert [(tick.at, tick.label) for tick in times.ticks(5)] == [
        (0.0, "0"), (0.2, "10 s"), (0.4, "20 s"), (0.6, "30 s"), (0.8, "40 s"), (1.0, "50 s"),
    ]  # fmt: skip


@pytest.mark.parametrize("span", [timedelta(microseconds=1), timedelta(days=3_600_000)])
def test_any_span_has_an_axis(span: timedelta) -> None:
    """The shortest and the longest that there are."""
    begin = datetime(1, 1, 2, tzinfo=UTC)
    step = a_step(status="completed", started_at=begin, completed_at=begin + span)
    assert 1 <= len([*timeline(snapshot(step, created_at=begin), NOW, None).ticks(9)]) <= 10


def test_a_run_without_times_has_no_axis() -> None:
    """Its steps are there all the same."""
    times = timeline(snapshot(a_step("a"), a_step("b")), NOW, None)
    assert (times.begin, times.end, len(times.bars)) == (None, None, 2)


def test_a_pending_step_tells_what_it_is_after() -> None:
    """Only what has not completed counts."""
    run = snapshot(
        done("a"), a_step("b", status="failed"), a_step("d"),
        definition=defined(a=[], b=[], c="a", d=["a", "b", "c"]),
    )  # fmt: skip
    assert timeline(run, NOW, graph(run)).bars[2].note == "after b, c"


# -- the graph -------------------------------------------------------------------------


def drawn(*steps: WorkflowStepState, **needs: Any) -> Graph:
    found = graph(snapshot(*steps, definition=defined(**needs)))
    assert found is not None
    return found


def test_a_step_stands_behind_all_that_it_depends_on() -> None:
    """On the longest way to it."""
    found = drawn(a=[], b=["a"], c="b", d=["a", "c"], e=None)
    assert [[found.nodes[each].step_id for each in layer] for layer in found.layers()] == [
        ["a", "e"], ["b"], ["c"], ["d"],
    ]  # fmt: skip


def test_a_graph_has_what_only_the_run_the_definition_or_a_dependency_knows() -> None:
    """Each as what it is."""
    found = drawn(done("a"), done("extra"), a=[], b=["a", "ghost", "extra"])
    told = {node.step_id: (node.step is not None, node.defined) for node in found.nodes}
    assert told == {
        "a": (True, True), "b": (False, True), "extra": (True, False), "ghost": (False, False),
    }  # fmt: skip


def test_a_cycle_is_found_and_what_is_behind_it_keeps_its_place() -> None:
    """The dependency that closes it is told."""
    found = drawn(a=["c"], b=["a"], c=["b"], d=["c"], me=["me"])
    ids = [node.step_id for node in found.nodes]
    assert {(ids[edge.before], ids[edge.after]) for edge in found.closing} == {
        ("a", "b"), ("me", "me"),
    }  # fmt: skip
    assert {node.step_id: node.layer for node in found.nodes} == {
        "b": 0, "c": 1, "a": 2, "d": 2, "me": 0,
    }  # fmt: skip


def test_boxes_stand_apart_and_arrows_lead_to_the_right() -> None:
    """Whatever depends on what, except cycles."""
    found = drawn(
        **{f"s{n}": [f"s{need}" for need in range(n % 7, n, 5)] for n in range(MAX_NODES)}
    )
    drawing = layout(found)
    assert drawing is not None
    columns: dict[float, list[float]] = {}
    for box in drawing.boxes:
        columns.setdefault(box.x, []).append(box.y)
        assert 0 < box.x < box.x + box.width < drawing.width
        assert 0 < box.y < box.y + box.height < drawing.height
    for heights in columns.values():
        heights.sort()
        assert all(low + 32 < high for low, high in pairwise(heights))
    assert len(drawing.arrows) == len(list(found.edges()))


def test_a_graph_that_is_too_large_is_not_drawn() -> None:
    """By its nodes or by its edges."""
    many = {f"s{each}": ["s0"] for each in range(1, MAX_NODES + 2)}
    assert layout(drawn(**many)) is None
    dense = {f"s{n}": [f"s{need}" for need in range(n)] for n in range(MAX_NODES)}
    assert sum(map(len, dense.values())) > MAX_EDGES
    assert layout(drawn(**dense)) is None
