"""The command as a process: its entry points, pipes, signals, the terminal, and what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from support.commands import (
    MODULE,
    PASSWORD,
    SCRIPT,
    assert_understood,
    command,
    commands,
    misused,
    process,
    refused,
    terminal,
)
from support.failures import path_of
from support.samples import filled, hostile, lines_of, several, snapshot, step
from support.waiting import PATIENCE_S
from workflow_store.archive import to_line

pytestmark = pytest.mark.slow

URL_WITH_PASSWORD = f"postgresql://user:{PASSWORD}@host/name"


COMMANDS = sorted(commands())


def test_there_are_the_commands_that_are_promised() -> None:
    """Nothing is missing, nothing has another name."""
    assert COMMANDS == [
        "check", "copy", "current", "doctor", "downgrade", "export", "import", "migrate",
        "runs delete", "runs list", "runs purge", "runs show",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_has_an_example_that_the_command_takes(name: str) -> None:
    """The example is read by the command's own parser."""
    shown = command(*name.split(), "--help")
    assert shown.code == 0
    flat = " ".join(shown.out.split())
    example = re.search(r"Example: (workflow-store .*?) (?:Arguments|Options):", flat)
    assert example is not None
    assert_understood(example[1], name)


def test_both_entry_points_are_the_command(sqlite_url: str) -> None:
    """They end with the exit codes of the commands, and a path that is not there is not made."""
    assert process("--version", by=SCRIPT) == (0, f"{version('workflow-store')}\n", "")
    refused(process("check", by=MODULE, WORKFLOW_STORE_URL=sqlite_url), 3, "does not exist")


def test_without_the_extra_one_line_says_how_to_get_it(sqlite_url: str) -> None:
    """A package that is missing is no traceback; one that is none of ours is."""
    program = (
        "import sys\n"
        "hidden = sys.argv[1]\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == hidden:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "sys.argv[:2] = ['workflow-store']\n"
        "import workflow_store\n"
        "from workflow_store.cli import main\n"
        "main()\n"
    )
    filled(sqlite_url, snapshot("r"))
    show = ("runs", "show", "r", "--url", sqlite_url)
    for name, *words in (("typer",), ("rich", *show), ("jinja2", *show, "--html", "-")):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, name, *words],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        wanted = "This command requires additional packages: pip install 'workflow-store[cli]'\n"
        assert done.stderr == wanted


SLOW_TO_IMPORT = {
    "aiosqlite", "alembic", "asyncio", "asyncpg", "click", "importlib.metadata", "jinja2",
    "orjson", "pydantic", "rich", "sqlalchemy",
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["--version"], [], ["--help"], ["runs", "--help"]]
    + [[*name.split(), "--help"] for name in COMMANDS],
    ids=" ".join,
)  # fmt: skip
def test_help_and_version_import_nothing_that_is_slow(arguments: list[str]) -> None:
    """The packages of the stores and of the rendering take three quarters of the start-up time."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from workflow_store.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    imported = set(done.stderr.splitlines()[-1].split())
    assert "typer" in imported
    assert not SLOW_TO_IMPORT & imported


# -- what must not be printed ----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", URL_WITH_PASSWORD],
        ["copy", "sqlite:///a", "sqlite:///b", f"postgresql://host/name?password={PASSWORD}"],
        ["check", f"postgresql://user:{PASSWORD}@{PASSWORD} @host/name"],
        [URL_WITH_PASSWORD],
        ["runs", URL_WITH_PASSWORD],
        ["runs", "list", "--limit", URL_WITH_PASSWORD],
        ["runs", "list", "--created-after", URL_WITH_PASSWORD],
        ["runs", "list", "--step-status", URL_WITH_PASSWORD],
        ["copy", URL_WITH_PASSWORD],
        ["runs", "delete", "r", "--yes", "--url", f"nothing of ours:{PASSWORD}@host"],
        ["runs", "purge", "--created-before", "1d", "--url", f"mysql://u:{PASSWORD}@host/name"],
        ["downgrade", "base", "--yes", "--url", f"postgresql://u:{PASSWORD}@host:port/name"],
        [f"--url{URL_WITH_PASSWORD}", "check"],
        ["check", f"--url{URL_WITH_PASSWORD}"],
        ["runs", f"--url{URL_WITH_PASSWORD}", "list"],
        [f"--urlpostgresql://user:{PASSWORD}=@host/name", "check"],
        ["check", f"postgresql://user@host/name?password=a@{PASSWORD}"],
        ["check", f"postgresql://host?password=a@{PASSWORD} {PASSWORD}"],
        ["copy", f"postgresql://host:5432/name?sslpassword={PASSWORD}&user=a@b"],
    ],
)
def test_a_url_in_the_wrong_place_is_not_quoted_with_its_password(arguments: list[str]) -> None:
    """What is quoted of wrong arguments is masked."""
    misused(command(*arguments))


@pytest.mark.parametrize("arguments", [["check", "\x1b[2J"], ["\x1b[2J"], ["runs", "\x1b]0;x\x07"]])
def test_wrong_arguments_do_not_act_on_the_terminal(arguments: list[str]) -> None:
    """What is quoted of them is escaped."""
    misused(command(*arguments), r"\x1b")


# -- pipes and signals -----------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with more runs than a pipe has room for."""
    return filled(f"sqlite:///{tmp_path_factory.mktemp('many')}/many.db", *several(1200, steps=1))


@pytest.mark.parametrize(
    "arguments", [["export", "--all"], ["runs", "list", "--limit", "1000", "--json"]]
)
def test_a_reader_that_has_enough_is_no_error_to_speak_of(many: str, arguments: list[str]) -> None:
    """As with `| head -1`: nothing is said about the pipe."""
    line = f"{shlex.join([*MODULE, *arguments, '--url', many])} | head -c 8"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.stdout in ('{"run":{', '{"runs":')
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [["runs", "list"], ["export", "run-00001"]],
)
def test_a_full_disk_is_told(many: str, arguments: list[str]) -> None:
    """What cannot be written is not lost in silence."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*MODULE, *arguments], env={**os.environ, "WORKFLOW_STORE_URL": many},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["runs", "delete", "run-00001"], ["import"]])
def test_a_closed_standard_input_is_nobody_to_ask(many: str, arguments: list[str]) -> None:
    """As cron may have it."""
    line = shlex.join([*MODULE, *arguments, "--url", many]) + " <&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--all"],
        ["runs", "list"],
        ["runs", "show", "run-00001"],
        ["check", "--json"],
        ["doctor"],
        ["--version"],
    ],
)
def test_data_for_a_closed_standard_output_is_not_lost_in_silence(
    many: str, arguments: list[str]
) -> None:
    """One message says so."""
    line = shlex.join([*MODULE, *arguments]) + " >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], env={**os.environ, "WORKFLOW_STORE_URL": many},
        stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Standard output is closed")
    assert len(done.stderr.splitlines()) == 1


def test_a_command_without_data_needs_no_standard_output(sqlite_url: str) -> None:
    """As cron may have it."""
    line = shlex.join([*MODULE, "migrate", "--url", sqlite_url]) + " >&-"
    subprocess.run(["/bin/sh", "-c", line], check=True, timeout=PATIENCE_S)
    assert command("check", "--url", sqlite_url).code == 0


def test_an_interrupt_ends_it_with_130_and_without_a_word(sqlite_url: str) -> None:
    """Ctrl-C while it waits for the next line; the lines before are done."""
    filled(sqlite_url)
    with subprocess.Popen(
        [*MODULE, "import", "--url", sqlite_url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs ignore SIGINT, and their children do too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as running:  # fmt: skip
        try:
            assert running.stdin is not None
            running.stdin.write(f"{to_line(snapshot('first'))}\n")
            running.stdin.flush()
            deadline = time.monotonic() + PATIENCE_S
            with contextlib.closing(sqlite3.connect(path_of(sqlite_url))) as database:
                while not database.execute("SELECT 1 FROM runs").fetchone():
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            running.wait(PATIENCE_S)
        finally:
            running.kill()
        out, err = running.communicate()
    assert (running.returncode, out, err) == (130, "", "")
    assert len(lines_of(sqlite_url)) == 1


# -- a terminal ------------------------------------------------------------------------

COLOUR = "\x1b["


def test_colours_are_on_a_terminal_alone(sqlite_url: str) -> None:
    """A pipe gets none, nor a terminal with NO_COLOR; the data is the same."""
    filled(sqlite_url, snapshot("r", step("s", status="failed")))
    listing = ("runs", "list", "--url", sqlite_url)
    code, screen = terminal(*listing)
    assert code == 0
    assert f"{COLOUR}1m" in screen or f"{COLOUR}31m" in screen
    _, plain = terminal(*listing, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)
    piped = command(*listing)
    assert piped.out.split()[-7:] == re.sub(r"\x1b\[[0-9;]*m", "", screen).split()[-7:]


def test_a_hostile_run_does_not_act_on_the_terminal(sqlite_url: str) -> None:
    """What is in a state is text there, and our own colours are all that acts."""
    filled(sqlite_url, hostile())
    run_task_id = hostile().run.run_task_id
    code, screen = terminal("runs", "show", run_task_id, "--url", sqlite_url)
    assert code == 0
    assert not re.search(r"\x1b(?!\[[0-9;?]*[mlhK])", screen)
    assert not {"\x07", "\x9b", "\u202e", "\u200b", "\u2066"} & set(screen)
    code, screen = terminal("export", run_task_id, "--url", sqlite_url)
    assert code == 0
    line, said = screen.splitlines()
    assert (line + said).isprintable()
    assert json.loads(line) == json.loads(to_line(hostile()))


def test_a_terminal_is_asked_before_something_is_deleted(sqlite_url: str) -> None:
    """No is 1 and changes nothing, yes is 0."""
    filled(sqlite_url, snapshot("r\x1b"))
    delete = ("runs", "delete", "r\x1b", "--url", sqlite_url)
    code, screen = terminal(*delete, answer="n\n")
    assert code == 1
    assert "This deletes run 'r\\x1b'" in screen
    assert "Nothing was changed." in screen
    code, screen = terminal(*delete, answer="y\n")
    assert code == 0
    assert "was deleted" in screen
    refused(command(*delete, "--yes"), 1, "There is no run 'r\\x1b'")


def test_progress_is_on_a_terminal_alone(tmp_path: Path, sqlite_url: str) -> None:
    """And it leaves nothing behind but the outcome."""
    source = filled(f"sqlite:///{tmp_path}/source.db", *several(100))
    code, screen = terminal("copy", source, sqlite_url)
    assert code == 0
    assert "Copying" in screen
    assert "The two stores match." in screen
    piped = command("copy", source, sqlite_url)
    assert piped.code == 0
    assert "Copying" not in piped.err


def test_any_encoding_of_the_output_will_do(sqlite_url: str) -> None:
    """What it does not have is escaped; JSON is UTF-8 wherever it goes."""
    filled(sqlite_url, hostile(), snapshot("\u4e2d\u6587"))
    asked: dict[str, Any] = {"PYTHONIOENCODING": "latin-1", "WORKFLOW_STORE_URL": sqlite_url}
    done = subprocess.run(
        [*MODULE, "runs", "list"], env={**os.environ, **asked},
        capture_output=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert r"\u4e2d\u6587" in done.stdout.decode("latin-1")
    assert "\u4e2d\u6587" in process("export", "\u4e2d\u6587", **asked).out
