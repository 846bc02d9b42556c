"""Runs the command `workflow-store` in this process, as a process, or on a terminal."""

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
    """The exit status and the output of a command."""

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
    """Run a command on a terminal, answer its prompt, and return its exit status and screen."""
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
            chunk = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        seen += chunk
        if answer and b"?" in seen:
            os.write(ours, answer)
            answer = b""
    return seen.decode()


def checked(ended: Ended) -> Ended:
    """Assert that there is no traceback, password or terminal control in the output."""
    printed = ended.out + ended.err
    assert "Traceback" not in printed
    assert "Unexpected" not in ended.err
    assert PASSWORD not in printed
    assert not {"\x1b", "\r", "\x07"} & set(printed)
    return ended


def refused(ended: Ended, code: int, *texts: str) -> None:
    """Assert that a command failed with one line that contains these texts, and printed no data."""
    assert (ended.code, ended.out) == (code, ""), ended
    message = ended.err.splitlines()
    assert len(message) == 1, ended.err
    for text in texts:
        assert text in message[0]


def misused(ended: Ended, *texts: str) -> None:
    """Assert that a command reported a usage error whose last line contains these texts."""
    assert (ended.code, ended.out) == (2, ""), ended
    for text in texts:
        assert text in ended.err.splitlines()[-1]


# -- the commands ----------------------------------------------------------------------


def commands(group: Any = None, *names: str) -> Iterator[str]:
    """Yield the name of each command, such as `runs list`."""
    group = group or typer.main.get_command(app)
    for name, member in group.commands.items():
        if hasattr(member, "commands"):
            yield from commands(member, *names, name)
        else:
            yield " ".join((*names, name))


def assert_understood(line: str, *names: str) -> None:
    """Assert that a command line names a command, and has valid arguments.

    Args:
        line: the command line; anything after a pipe or a redirection is ignored.
        names: the commands that are allowed; all by default.
    """
    _, *words = shlex.split(re.split(r" (?:[|&;<>]|2>)", line)[0], comments=True)
    if words == ["--version"]:
        return
    group = typer.main.get_command(app)
    context: Any = group.make_context("workflow-store", list(words))
    path, member = [], context.command
    while hasattr(member, "commands"):
        name, member, words = member.resolve_command(context, words)
        path.append(name)
    assert " ".join(path) in (names or commands())
    member.make_context(path[-1], words)
