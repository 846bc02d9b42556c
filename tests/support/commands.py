"""The command `workflow-store`: in this process, as a process, and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.testing import CliRunner

from support.waiting import PATIENCE_S
from workflow_store.cli.app import app

SCRIPT = (str(Path(sys.executable).with_name("workflow-store")),)
MODULE = (sys.executable, "-W", "error", "-m", "workflow_store")
PASSWORD = "S3CR3T"


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def command(*arguments: str, stdin: str | bytes = b"") -> Ended:
    """Run a command in this process; there is no terminal."""
    result = CliRunner().invoke(app, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return checked(Ended(result.exit_code, result.stdout, result.stderr))


def process(
    *arguments: str, by: tuple[str, ...] = MODULE, stdin: bytes = b"", **environment: str
) -> Ended:
    """Run a command as a process, with pipes."""
    done = subprocess.run(
        [*by, *arguments],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return checked(Ended(done.returncode, done.stdout.decode(), done.stderr.decode()))


def terminal(*arguments: str, answer: str = "", **environment: str) -> tuple[int, str]:
    """Run a command on a terminal, and answer its question; give its exit code and its screen."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*MODULE, *arguments],
            env={"TERM": "xterm-256color", **os.environ, **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as running:
            os.close(theirs)
            screen = _screen(ours, answer.encode())
            code = running.wait(PATIENCE_S)
    finally:
        os.close(ours)
    assert "Traceback" not in screen
    return code, screen


def _screen(ours: int, answer: bytes) -> str:
    seen = b""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            some = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not some:
            break
        seen += some
        if answer and b"?" in seen:
            os.write(ours, answer)
            answer = b""
    return seen.decode()


def checked(ended: Ended) -> Ended:
    """Make sure that it printed no traceback, no password and nothing that acts on a terminal."""
    printed = ended.out + ended.err
    assert "Traceback" not in printed
    assert "Unexpected" not in ended.err
    assert PASSWORD not in printed
    assert not {"\x1b", "\r", "\x07"} & set(printed)
    return ended


def refused(ended: Ended, code: int, *said: str) -> None:
    """Make sure that a command said no in one clear message, and printed nothing else."""
    assert (ended.code, ended.out) == (code, ""), ended
    message = ended.err.splitlines()
    assert len(message) == 1, ended.err
    for words in said:
        assert words in message[0]


def misused(ended: Ended, *said: str) -> None:
    """Make sure that a command was refused as used in a wrong way, with a line that says why."""
    assert (ended.code, ended.out) == (2, ""), ended
    for words in said:
        assert words in ended.err.splitlines()[-1]


# -- what commands there are -----------------------------------------------------------


def commands(group: Any = None, *names: str) -> Iterator[str]:
    """Give the words of each command."""
    group = group or typer.main.get_command(app)
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from commands(each, *names, name)
        else:
            yield " ".join((*names, name))


def assert_understood(line: str, *names: str) -> None:
    """Make sure that a command line names a command, and arguments that it takes.

    Args:
        line: as one types it; what comes after a pipe or the like is left out.
        names: the commands that it may be, all where none are given.
    """
    _, *words = shlex.split(re.split(r" (?:[|&;<>]|2>)", line)[0], comments=True)
    if words == ["--version"]:
        return
    group = typer.main.get_command(app)
    context: Any = group.make_context("workflow-store", list(words))
    found, each = [], context.command
    while hasattr(each, "commands"):
        name, each, words = each.resolve_command(context, words)
        found.append(name)
    assert " ".join(found) in (names or commands())
    each.make_context(found[-1], words)
