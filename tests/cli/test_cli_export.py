"""The commands `export` and `import`."""

from __future__ import annotations

import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from support.commands import PASSWORD, command, misused, process, refused
from support.samples import (
    DAY,
    MICROSECOND,
    filled,
    hostile,
    lines_of,
    newest_first,
    several,
    snapshot,
    step,
)
from workflow_store import InvalidStateError, open_store
from workflow_store.archive import from_line, to_line

GOOD = to_line(snapshot("good"))


def test_an_archive_goes_through_both_databases_and_stays_the_same(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    """Order, microseconds and each JSON value survive, the hostile ones among them."""
    snapshots = [*several(5), hostile()]
    filled(sqlite_url, *snapshots)
    first = command("export", "--all", "--url", sqlite_url)
    assert (first.code, first.err) == (0, "6 runs exported.\n")
    assert first.out.split("\n")[:-1] == newest_first(*snapshots)

    there = command("import", "--url", postgres_url, stdin=first.out)
    assert (there.code, there.out) == (0, "")
    assert there.err.startswith("6 runs imported, 0 updated, 0 unchanged, 0 left")
    assert command("export", "--all", "--url", postgres_url).out == first.out

    file = tmp_path / "back.jsonl"
    file.write_text(first.out, "utf-8")
    back = f"sqlite:///{tmp_path}/back.db"
    assert command("import", str(file), "--url", back).code == 0
    assert command("export", "--all", "--url", back).out == first.out


def test_new_files_are_their_owners_only_and_others_keep_their_mode(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Exports and pages; a command that fails leaves a file as it is."""
    filled(sqlite_url, *several(3))
    export, page = tmp_path / "runs.jsonl", tmp_path / "run.html"
    previous = os.umask(0o022)
    try:
        for mode in (0o600, 0o644):
            done = command("export", "--all", "--output", str(export), "--url", sqlite_url)
            assert (done.code, done.out, done.err) == (0, "", "3 runs exported.\n")
            shown = command("runs", "show", "run-00001", "--html", str(page), "--url", sqlite_url)
            assert shown.code == 0
            for file in (export, page):
                assert stat.S_IMODE(file.stat().st_mode) == mode
                file.chmod(0o644)
        text = export.read_text("utf-8")
        assert text == command("export", "--all", "--url", sqlite_url).out
        refused(command("export", "no", "--output", str(export), "--url", sqlite_url), 1, "no run")
        assert export.read_text("utf-8") == text
        assert "<html" in page.read_text("utf-8")
    finally:
        os.umask(previous)


def test_an_import_that_is_repeated_changes_nothing(sqlite_url: str) -> None:
    """Whole, or after it was stopped half-way; a run in another order is put in order."""
    snapshots = several(4)
    lines = "".join(f"{to_line(each)}\n" for each in snapshots)
    filled(sqlite_url, snapshots[0], snapshot("run-00001", *snapshots[1].steps[:2]))
    reordered = snapshots[2]._replace(steps=snapshots[2].steps[::-1])
    filled(sqlite_url, reordered)
    done = command("import", "-", "--url", sqlite_url, stdin=lines)
    assert done.err.startswith("1 run imported, 2 updated, 1 unchanged, 0 left")
    assert lines_of(sqlite_url) == newest_first(*snapshots)
    done = command("import", "--url", sqlite_url, stdin=lines)
    assert done.err.startswith("0 runs imported, 0 updated, 4 unchanged, 0 left")


def test_a_line_that_is_too_long_is_an_error_that_names_it(sqlite_url: str, tmp_path: Path) -> None:
    """The lines before it are imported; with a higher bound, it is one."""
    large = to_line(snapshot("large", step("s", result="x" * 2**20)))
    file = tmp_path / "runs.jsonl"
    file.write_text(f"{GOOD}\n{large}\n", "utf-8")
    bounded = ["import", str(file), "--url", sqlite_url, "--max-line-mb"]
    refused(command(*bounded, "1"), 1, "Line 2: longer than 1 MiB", "--max-line-mb")
    assert lines_of(sqlite_url) == [GOOD]
    assert command(*bounded, "2").code == 0
    assert len(lines_of(sqlite_url)) == 2
    for wrong in ("0", "-1", "x"):
        misused(command(*bounded, wrong), "--max-line-mb")


def test_a_line_without_an_end_is_not_read_whole(sqlite_url: str) -> None:
    """An import of a device that never ends stops at the bound."""
    done = command("import", "/dev/zero", "--url", sqlite_url, "--max-line-mb", "1")
    refused(done, 1, "Line 1: longer than 1 MiB")


def test_a_line_of_exactly_the_bound_is_read(sqlite_url: str, tmp_path: Path) -> None:
    """Its end does not count."""
    line = to_line(snapshot("large", step("s", result="")))
    line = line.replace('"result":""', f'"result":"{"x" * (2**20 - len(line.encode()))}"')
    assert len(line) == 2**20
    for end in ("", "\n"):
        file = tmp_path / "runs.jsonl"
        file.write_text(line + end, "utf-8")
        done = command("import", str(file), "--url", sqlite_url, "--max-line-mb", "1")
        assert (done.code, done.out) == (0, "")


def test_a_newer_run_is_left_alone_and_named(database_url: str) -> None:
    """The others are imported; the command ends with 1."""
    newer = snapshot("r\x1b", step("s", completed_at=DAY + MICROSECOND))
    filled(database_url, newer)
    older = snapshot("r\x1b", step("s"))
    lines = f"{to_line(older)}\n{GOOD}\n"
    done = command("import", "--url", database_url, stdin=lines)
    assert (done.code, done.out) == (1, "")
    assert r"Run 'r\x1b' is newer in the database and was left alone." in done.err
    assert "1 run imported, " in done.err
    assert set(lines_of(database_url)) == {to_line(newer), GOOD}


def test_an_export_names_one_run_or_all(sqlite_url: str) -> None:
    """One that is not there is a no."""
    filled(sqlite_url, *several(2))
    assert command("export", "run-00001", "--url", sqlite_url).err == "1 run exported.\n"
    refused(command("export", "gone\x1b", "--url", sqlite_url), 1, r"There is no run 'gone\x1b'")
    misused(command("export", "--url", sqlite_url), "--all")
    misused(command("export", "run-00001", "--all", "--url", sqlite_url), "--all")


def test_an_empty_store_has_an_empty_archive(sqlite_url: str, tmp_path: Path) -> None:
    """It can be imported, too, and makes a database."""
    filled(sqlite_url)
    assert command("export", "--all", "--url", sqlite_url) == (0, "", "0 runs exported.\n")
    new = f"sqlite:///{tmp_path}/new.db"
    assert command("import", "--url", new).code == 0
    assert command("check", "--url", new).code == 0


STEP = '{"step_id":"s","status":"pending"}'
WRONG = {
    "": "not valid JSON",
    "{": "not valid JSON",
    "[]": '{"run": {…}, "steps": […]}',
    "null": '{"run": {…}, "steps": […]}',
    GOOD[:-1]: "not valid JSON",
    GOOD.replace('"steps"', '"step"'): '{"run": {…}, "steps": […]}',
    f'{GOOD[:-1]},"more":1}}': '{"run": {…}, "steps": […]}',
    GOOD.replace('"agent_id":"a",', ""): "run.agent_id",
    GOOD.replace('"agent_id"', '"agnt_id"'): "run.ag",
    GOOD.replace('"a"', f'"a","\\u001b{"k" * 999}":1'): r"run.\x1bkkk",
    "[" * 100_000: "nested",
    GOOD.replace('"a"', '"\\u0000"'): "run.agent_id",
    GOOD.replace("2026-01-01T00:00:00Z", f"{PASSWORD}"): "run.created_at",
    GOOD.replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"): "run.created_at",
    GOOD.replace('"definition":{}', '"definition":[]'): "run.definition",
    GOOD.replace('"definition":{}', '"definition":{"a":NaN}'): "not valid JSON",
    GOOD.replace('"definition":{}', '"definition":{"a":1,"a":2}'): "duplicate key",
    GOOD.replace('"input":{}', '"input":' + "[" * 200 + "]" * 200): "nested",
    GOOD.replace("[]", f"[{STEP},1]"): "steps[1]",
    GOOD.replace("[]", f"[{STEP},{STEP}]"): "duplicate step_id",
    GOOD.replace("[]", f"[{STEP.replace('pending', PASSWORD)}]"): "steps[0].status",
    GOOD.replace("[]", "null"): '{"run": {…}, "steps": […]}',
}


@pytest.fixture(scope="module")
def shared_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database that holds the same after each test."""
    return filled(f"sqlite:///{tmp_path_factory.mktemp('shared')}/shared.db")


@pytest.mark.parametrize("line", WRONG, ids=range(len(WRONG)))
def test_a_line_that_is_wrong_is_named_and_stops_the_import(shared_url: str, line: str) -> None:
    """What is before it is imported, what comes after is not; no value is quoted."""
    lines = f"{to_line(snapshot('before'))}\n{line}\n{GOOD}\n"
    done = command("import", "--url", shared_url, stdin=lines)
    assert len(done.err) < 300
    refused(done, 1, "Line 2: ", WRONG[line], "The lines before it were imported.")
    assert lines_of(shared_url) == [to_line(snapshot("before"))]


def test_bytes_that_are_no_text_are_told(sqlite_url: str) -> None:
    """Such as those of a compressed file."""
    compressed = gzip.compress(GOOD.encode())
    refused(command("import", "--url", sqlite_url, stdin=compressed), 1, "Line 1: not valid UTF-8")


def test_a_file_that_is_not_there_is_told_before_a_database_is_made(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Neither does a folder do."""
    refused(command("import", "/no/such/file", "--url", sqlite_url), 1, "/no/such/file: No such")
    refused(command("import", str(tmp_path), "--url", sqlite_url), 1, "directory")
    refused(command("check", "--url", sqlite_url), 3)


def test_a_line_may_come_from_another_program(sqlite_url: str) -> None:
    """Spaces, a carriage return, other times and escapes of JSON say the same."""
    line = (
        ' { "steps" : [ {"status":"completed","step_id":"s","result":null,'
        '"started_at":"2026-01-01T01:00:00.000001999+01:00"} ], "run": {"user_id":"\\u0075",'
        '"agent_id":"a","thread_id":"t","run_task_id":"r","definition":{},'
        '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"}}\r\n'
    )
    assert command("import", "--url", sqlite_url, stdin=line).code == 0
    wanted = snapshot("r", step("s", status="completed", started_at=DAY + MICROSECOND))
    assert lines_of(sqlite_url) == [to_line(wanted)]


def test_an_export_is_piped_into_an_import(sqlite_url: str, tmp_path: Path) -> None:
    """As processes; the bytes are UTF-8 whatever the terminal's encoding is."""
    filled(sqlite_url, hostile(), snapshot("\u4e2d\u6587"))
    asked: dict[str, Any] = {"PYTHONIOENCODING": "ascii"}
    printed = process("export", "--all", "--url", sqlite_url, **asked)
    assert printed.code == 0
    new = f"sqlite:///{tmp_path}/new.db"
    assert process("import", "--url", new, stdin=printed.out.encode(), **asked).code == 0
    assert lines_of(new) == lines_of(sqlite_url)


def test_a_line_is_the_wire_form_of_its_run_and_steps() -> None:
    """One line, whatever is in it, and reading it gives what was written."""
    line = to_line(hostile())
    assert "\n" not in line
    run, steps = hostile()
    wire = [run.model_dump_json(), *(step.model_dump_json() for step in steps)]
    assert line == f'{{"run":{wire[0]},"steps":[{",".join(wire[1:])}]}}'
    assert to_line(from_line(line)) == to_line(from_line(line.encode())) == line
    assert list(json.loads(line)) == ["run", "steps"]
    with pytest.raises(InvalidStateError, match="not valid UTF-8"):
        from_line(b"\xff")


async def test_a_line_holds_what_the_store_holds(sqlite_url: str) -> None:
    """A line read and written through a store is the same line."""
    async with open_store(sqlite_url) as store:
        run, steps = from_line(to_line(hostile()))
        await store.create_run(run)
        for each in steps:
            await store.upsert_step(run.run_task_id, each)
        loaded = await store.load_run(run.run_task_id)
    assert loaded is not None
    assert to_line(loaded) == to_line(hostile())
