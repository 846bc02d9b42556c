"""Puts together what the site is made from, in build/docs: `python docs/site.py`.

That is the pages of docs/, the changelog, the reference of the commands as they tell it
themselves, and each file of the checkout that a page links to: source as a page of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import typer

from workflow_store.cli.app import app

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CHANGELOG = ROOT / "CHANGELOG.md"
BUILT = ROOT / "build" / "docs"
FILES = "files"
"""The folder of the site for what lies outside of docs/."""

LANGUAGES = {".py": "python", ".toml": "toml"}
"""What is shown as a page of its own, and not handed out as a file."""

Command: TypeAlias = Any
Parameter: TypeAlias = Any
"""Typer has a Click of its own, under no public name."""

LINK = re.compile(r"(?<=\]\()(?!\w+:)[\w./-]+(?=[)#])")

CODE = re.compile(r"--[a-z][a-z-]*|\w+://[\w.:@/]*\w|\{.*\}")
"""What is code in a help text, which has no marks for it."""


def main() -> None:
    """Put it together anew."""
    shutil.rmtree(BUILT, ignore_errors=True)
    for path in DOCS.rglob("*"):
        to = BUILT / path.relative_to(DOCS)
        if path.suffix == ".md":
            copy_page(path, to)
        elif path.suffix in {".css", ".png", ".svg"}:
            copy(path, to)
    copy_page(CHANGELOG, BUILT / "changelog.md")
    write(BUILT / "reference" / "commands.md", "\n".join(reference()))


def copy_page(page: Path, to: Path) -> None:
    """Copy a page, with what it links to outside of docs/."""

    def place(link: re.Match[str]) -> str:
        return os.path.relpath(placed((page.parent / link[0]).resolve()), to.parent)

    write(to, LINK.sub(place, page.read_text("utf-8")))


def placed(source: Path) -> Path:
    """Tell where a file of the checkout is on the site; bring it there if no other way does."""
    if source.is_relative_to(DOCS):
        return BUILT / source.relative_to(DOCS)
    if source == CHANGELOG:
        return BUILT / "changelog.md"
    name = source.relative_to(ROOT)
    to = BUILT / FILES / name
    language = LANGUAGES.get(source.suffix)
    if language is None:
        copy(source, to)
        return to
    to = to.with_name(f"{to.name}.md")
    write(to, f"# {name}\n\n```{language}\n{source.read_text('utf-8')}```\n")
    return to


def copy(path: Path, to: Path) -> None:
    """Copy a file as it is."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def write(path: Path, text: str) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# -- the commands ----------------------------------------------------------------------


def reference() -> Iterator[str]:
    """Give the lines of the page about all commands."""
    root = typer.main.get_command(app)
    yield "# Commands\n"
    yield "Made from the commands themselves; `--help` tells the same. What they are for, with"
    yield "examples, is in [The command line](../command-line.md).\n"
    yield f"{prose(root.help)}\n"
    yield from parameters(root)
    for name, command in walk(root, "workflow-store"):
        yield from section(name, command)


def walk(group: Command, name: str) -> Iterator[tuple[str, Command]]:
    """Give each command below a group that is none itself, by the whole name."""
    for part, command in getattr(group, "commands", {}).items():
        whole = f"{name} {part}"
        if hasattr(command, "commands"):
            yield from walk(command, whole)
        else:
            yield whole, command


def section(name: str, command: Command) -> Iterator[str]:
    """Give the lines about one command."""
    text, _, example = (command.help or "").partition("Example:")
    yield f"## {name.removeprefix('workflow-store ')}\n"
    yield f"{prose(text)}\n"
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = [name, "[OPTIONS]", *(each.metavar or each.name.upper() for each in arguments)]
    yield f"```text\n{' '.join(usage)}\n```\n"
    yield from parameters(command)
    yield f"Example:\n\n```sh\n{example.strip()}\n```\n"


def parameters(command: Command) -> Iterator[str]:
    """Give the lines of the table of arguments and options."""
    yield "| | |"
    yield "|---|---|"
    for each in command.params:
        help_ = prose(getattr(each, "help", None) or "").replace("|", r"\|")
        if each.envvar:
            help_ += f" Environment: `{each.envvar}`."
        yield f"| {spelled(each)} | {help_}{default(each)} |"
    yield "| `--help` | Tell all this. |\n"


def spelled(parameter: Parameter) -> str:
    """Render a parameter as it is written on the command line."""
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return f"`{metavar}`"
    return " ".join(filter(None, (f"`{parameter.opts[0]}", metavar))) + "`"


def default(parameter: Parameter) -> str:
    """Say what a parameter is where it is not given, unless that says nothing."""
    value = parameter.default
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return ""
    return f" By default {value:,}." if isinstance(value, int | float) else f" By default {value}."


def prose(text: str | None) -> str:
    """Render a help text as Markdown: options and URLs in it are code."""
    paragraphs = [" ".join(each.split()) for each in (text or "").split("\n\n")]
    marked = (CODE.sub(r"`\g<0>`", each) for each in paragraphs)
    return "\n\n".join(filter(None, marked))


if __name__ == "__main__":
    main()
