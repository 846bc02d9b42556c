"""The commands `runs list`, `runs show`, `runs delete` and `runs purge`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.commands import Ended, command, misused, refused
from support.samples import (
    DAY,
    MICROSECOND,
    filled,
    hostile,
    lines_of,
    run,
    several,
    snapshot,
    step,
)
from workflow_store import RunSnapshot, TaskStatus, WorkflowExecutionState, WorkflowStepState
from workflow_store.archive import to_line

NOW = datetime.now(UTC)


def listed(ended: Ended) -> list[str]:
    assert ended.code == 0, ended
    return [each["run_task_id"] for each in json.loads(ended.out)["runs"]]


def ids(url: str) -> set[str]:
    return {json.loads(line)["run"]["run_task_id"] for line in lines_of(url)}


# -- list ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with three runs, to be looked at."""
    return filled(
        f"sqlite:///{tmp_path_factory.mktemp('three')}/three.db",
        snapshot("a", step("s", status="input_required"), user_id="user", workspace_id="w"),
        snapshot(
            "b", step("s", status="failed"), agent_id="agent", thread_id="thread",
            created_at=DAY + MICROSECOND,
        ),
        snapshot("new", created_at=NOW - timedelta(hours=2)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["new", "b", "a"]),
        (["--agent-id", "agent"], ["b"]),
        (["--thread-id", "thread"], ["b"]),
        (["--user-id", "user"], ["a"]),
        (["--workspace-id", "w"], ["a"]),
        (["--step-status", "failed"], ["b"]),
        (["--step-status", "input_required", "--agent-id", "a"], ["a"]),
        (["--created-after", "2026-01-01"], ["new", "b"]),
        (["--created-after", "2026-01-01T01:00:00.000001+01:00"], ["new"]),
        (["--created-before", "2026-01-01T00:00:00.000001Z"], ["a"]),
        (["--created-after", "12h"], ["new"]),
        (["--created-before", "1w"], ["b", "a"]),
        (["--created-before", "90m", "--created-after", "200w"], ["new", "b", "a"]),
        (["--created-after", "90m"], []),
        (["--limit", "1"], ["new"]),
    ],
)
def test_each_filter_of_a_listing_is_an_option(
    three: str, options: list[str], found: list[str]
) -> None:
    """Times are given with their offset, as a date, or as how long ago."""
    assert listed(command("runs", "list", "--json", "--url", three, *options)) == found
    drawn = command("runs", "list", "--url", three, *options)
    rows = [line.split()[0] for line in drawn.out.splitlines() if line != "No runs."]
    assert rows == (["run", *found] if found else [])


def test_the_json_of_a_listing_is_stable(database_url: str) -> None:
    """It is the wire form of a summary, and the cursor leads through all pages."""
    filled(database_url, *several(4), snapshot("no steps", workspace_id="w", entry_point="e"))
    at = ("runs", "list", "--json", "--limit", "2", "--url", database_url)
    page = json.loads(command(*at).out)
    assert page.keys() == {"runs", "next_cursor"}
    first, _ = page["runs"]
    assert first == {
        "run_task_id": "run-00003",
        "agent_id": "a",
        "thread_id": "t",
        "user_id": "u",
        "created_at": "2026-01-01T00:00:00.000003Z",
        "updated_at": "2026-01-01T00:00:00.000009Z",
        "step_counts": {"completed": 3},
    }
    seen = [each["run_task_id"] for each in page["runs"]]
    while page["next_cursor"] is not None:
        page = json.loads(command(*at, "--cursor", page["next_cursor"]).out)
        seen += [each["run_task_id"] for each in page["runs"]]
    assert seen == ["run-00003", "run-00002", "run-00001", "run-00000", "no steps"][:3] + seen[3:]
    assert sorted(seen) == sorted(ids(database_url))
    last = page["runs"][-1]
    assert ("workspace_id" in last) == (last["run_task_id"] == "no steps")


def test_a_listing_says_how_to_go_on(sqlite_url: str) -> None:
    """The cursor is a message and no part of the table."""
    filled(sqlite_url, *several(3))
    first = command("runs", "list", "--limit", "2", "--url", sqlite_url)
    assert "--cursor" not in first.out
    cursor = first.err.split()[-1]
    rest = command("runs", "list", "--limit", "2", "--cursor", cursor, "--url", sqlite_url)
    assert (rest.code, rest.err) == (0, "")
    assert "run-00000" in rest.out
    other = command("runs", "list", "--agent-id", "x", "--cursor", cursor, "--url", sqlite_url)
    refused(other, 2, "cursor")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "0"], "limit"),
        (["--limit", "1001"], "limit"),
        (["--limit", "x"], "--limit"),
        (["--cursor", "x"], "cursor"),
        (["--agent-id", ""], "agent_id"),
        (["--agent-id", "a\udcff"], "agent_id"),
        (["--step-status", "done"], "--step-status"),
        (["--created-after", "yesterday"], "2026-01-31"),
        (["--created-after", "2026-01-01T00:00:00"], "offset"),
        (["--created-before", "99999999999d"], "an age"),
        (["--created-before", "0001-01-01T00:00:00+14:00"], "offset"),
        (["--created-before", "1\u0663h"], "an age"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(three: str, options: list[str], said: str) -> None:
    """The message names what is wrong with which option."""
    misused(command("runs", "list", "--url", three, *options), said)


# -- show ------------------------------------------------------------------------------


def test_a_run_is_drawn_with_its_steps(database_url: str) -> None:
    """Ids, statuses, what waits for what, and what depends on what."""
    filled(
        database_url,
        snapshot(
            "r",
            step("fetch", status="completed", started_at=DAY, completed_at=DAY),
            step("approve", status="input_required", wait_task_id="approval-7"),
            step("send", status="failed", error="no route"),
            definition={"steps": [{"id": "fetch"}, {"id": "approve", "depends_on": ["fetch"]}]},
        ),
    )
    shown = command("runs", "show", "r", "--url", database_url)
    assert (shown.code, shown.err) == (0, "")
    for words in ("fetch", "approval-7", "no route", "1 completed", "Dependencies"):
        assert words in shown.out
    mermaid = command("runs", "show", "r", "--mermaid", "--url", database_url)
    assert mermaid.out.startswith("flowchart LR\n")
    assert " --> " in mermaid.out


def test_the_json_of_a_run_is_its_wire_form(database_url: str) -> None:
    """It is the line that `export` prints and `import` reads."""
    filled(database_url, hostile())
    run_task_id = hostile().run.run_task_id
    shown = command("runs", "show", run_task_id, "--json", "--url", database_url)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == f"{to_line(hostile())}\n"
    assert command("export", run_task_id, "--url", database_url).out == shown.out
    members = json.loads(shown.out)
    assert members.keys() == {"run", "steps"}
    again = RunSnapshot(
        WorkflowExecutionState.model_validate(members["run"]),
        [WorkflowStepState.model_validate(each) for each in members["steps"]],
    )
    assert to_line(again) == to_line(hostile())


def test_a_page_is_written_to_a_file_or_to_standard_output(sqlite_url: str, tmp_path: Path) -> None:
    """The file is UTF-8; one that cannot be written is told."""
    filled(sqlite_url, hostile())
    show = ("runs", "show", hostile().run.run_task_id, "--url", sqlite_url)
    file = tmp_path / "run.html"
    written = command(*show, "--html", str(file))
    assert (written.code, written.out, written.err) == (0, "", f"Wrote {file}.\n")
    text = file.read_text("utf-8")
    assert text.lower().startswith("<!doctype html>")
    piped = command(*show, "--html", "-")
    assert piped.code == 0
    assert piped.out.lower().startswith("<!doctype html>")
    refused(command(*show, "--html", str(tmp_path)), 1, str(tmp_path))
    refused(command(*show, "--html", "/no/such/folder/x"), 1, "/no/such/folder/x", "No such file")


@pytest.mark.parametrize(
    "options", [["--json", "--mermaid"], ["--json", "--html", "-"], ["--mermaid", "--html", "x"]]
)
def test_one_form_at_a_time_is_shown(sqlite_url: str, options: list[str]) -> None:
    """Nothing is written."""
    filled(sqlite_url, snapshot("r"))
    misused(command("runs", "show", "r", "--url", sqlite_url, *options), "are mutually exclusive")


@pytest.mark.parametrize("words", [["show"], ["show", "--json"], ["delete", "--yes"]])
def test_a_run_that_is_not_there_is_a_no(database_url: str, words: list[str]) -> None:
    """The message names it, escaped."""
    filled(database_url)
    name, *options = words
    at = ("--url", database_url, *options, "--")
    refused(command("runs", name, *at, "\x1b\u202e"), 1, r"There is no run '\x1b\u202e' in ")
    refused(command("runs", name, *at, ""), 2, "run_task_id")
    refused(command("runs", name, *at, "\udcff"), 2, "run_task_id", "surrogates")


# -- delete and purge ------------------------------------------------------------------


def test_a_run_is_deleted_when_it_is_confirmed(database_url: str) -> None:
    """With no terminal to ask at, `--yes` is needed."""
    filled(database_url, *several(2), hostile())
    delete = ("runs", "delete", hostile().run.run_task_id, "--url", database_url)
    refused(command(*delete), 2, "This deletes run", r"\x1b[31m", "Pass --yes")
    refused(command(*delete, stdin="y\n"), 2, "Pass --yes")
    assert len(ids(database_url)) == 3
    done = command(*delete, "--yes")
    assert (done.code, done.out) == (0, "")
    assert ids(database_url) == {"run-00000", "run-00001"}


def ended_and_open() -> list[RunSnapshot]:
    ended = [
        snapshot(f"ended-{status}-{number}", step("s", status=status), created_at=DAY + MICROSECOND)
        for status in ("completed", "failed", "canceled")
        for number in range(2)
    ]
    goes_on = [
        snapshot(f"open-{status}", step("a", status="completed"), step("b", status=status))
        for status in TaskStatus
        if not status.is_terminal
    ]
    young = snapshot("young", step("s", status="completed"), created_at=NOW)
    return [*ended, *goes_on, young, RunSnapshot(run("no steps"), [])]


def test_a_purge_deletes_what_its_dry_run_counted(database_url: str) -> None:
    """Old runs that have ended, and no others; a second one finds nothing."""
    filled(database_url, *ended_and_open())
    before = lines_of(database_url)
    purge = ("runs", "purge", "--created-before", "1d", "--url", database_url)
    dry = command(*purge, "--dry-run", "--json")
    assert json.loads(dry.out) == {"deleted": 0, "found": 7, "dry_run": True}
    assert command(*purge, "--dry-run") == (0, "", "7 runs would be deleted.\n")
    refused(command(*purge), 2, "have ended", "Pass --yes")
    assert lines_of(database_url) == before

    done = command(*purge, "--yes", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"deleted": 7, "found": 7, "dry_run": False}
    left = {"young", *(f"open-{status}" for status in TaskStatus if not status.is_terminal)}
    assert ids(database_url) == left
    assert command(*purge, "--yes") == (0, "", "0 runs deleted.\n")


def test_a_purge_deletes_runs_up_to_its_time(sqlite_url: str) -> None:
    """Runs of the same age and a time in the middle of them make no difference."""
    same = [snapshot(f"same-{number}", created_at=DAY) for number in range(10)]
    filled(sqlite_url, *same, *several(20))
    until = "2026-01-01T00:00:00.000010Z"
    purge = ("runs", "purge", "--created-before", until, "--json", "--url", sqlite_url)
    assert json.loads(command(*purge, "--dry-run").out)["found"] == 20
    assert json.loads(command(*purge, "--yes").out)["deleted"] == 20
    assert ids(sqlite_url) == {f"run-{number:05}" for number in range(10, 20)}


def test_a_purge_names_a_time(sqlite_url: str) -> None:
    """There is no default for what is deleted."""
    filled(sqlite_url)
    misused(command("runs", "purge", "--yes", "--url", sqlite_url), "--created-before")
