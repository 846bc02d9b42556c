"""Assembles the source of the site in build/docs: `python docs/site.py`.

It consists of the pages of docs/, the changelog, the command reference, generated from the
commands, and each file of the checkout that a page links to. Source files become pages.
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
"""The folder of the site for files outside of docs/."""

LANGUAGES = {".py": "python", ".toml": "toml"}
"""Source files that become a page, by suffix, with their language. Others stay files."""

Command: TypeAlias = Any
Parameter: TypeAlias = Any
"""Typer vendors Click, without a public name."""

LINK = re.compile(r"(?<=\]\()(?!\w+:)[\w./-]+(?=[)#])")

CODE = re.compile(r"--[a-z][a-z-]*|\w+://[\w.:@/]*\w|\{.*\}")
"""Code in a help text, which is not marked as such."""


def main() -> None:
    """Build it from scratch."""
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
    """Copy a page, and the files outside of docs/ to which it links."""

    def relative(link: re.Match[str]) -> str:
        return os.path.relpath(published((page.parent / link[0]).resolve()), to.parent)

    write(to, LINK.sub(relative, page.read_text("utf-8")))


def published(source: Path) -> Path:
    """Return the path of a checkout's file on the site; copy it there if it is outside of docs/."""
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
    """Copy a file unchanged."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def write(path: Path, text: str) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# -- the commands ----------------------------------------------------------------------


def reference() -> Iterator[str]:
    """Yield the lines of the page about all commands."""
    root = typer.main.get_command(app)
    yield "# Commands\n"
    yield "Generated from the commands: the same as `--help`. For explanations and examples, see"
    yield "[The command line](../command-line.md).\n"
    yield f"{prose(root.help)}\n"
    yield from parameters(root)
    for name, command in walk(root, "workflow-store"):
        yield from section(name, command)


def walk(group: Command, name: str) -> Iterator[tuple[str, Command]]:
    """Yield the commands of a group and its subgroups, with their full names."""
    for part, command in getattr(group, "commands", {}).items():
        full_name = f"{name} {part}"
        if hasattr(command, "commands"):
            yield from walk(command, full_name)
        else:
            yield full_name, command


def section(name: str, command: Command) -> Iterator[str]:
    """Yield the lines about one command."""
    text, _, example = (command.help or "").partition("Example:")
    yield f"## {name.removeprefix('workflow-store ')}\n"
    yield f"{prose(text)}\n"
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = [name, "[OPTIONS]", *(param.metavar or param.name.upper() for param in arguments)]
    yield f"```text\n{' '.join(usage)}\n```\n"
    yield from parameters(command)
    yield f"Example:\n\n```sh\n{example.strip()}\n```\n"


def parameters(command: Command) -> Iterator[str]:
    """Yield the lines of the table of arguments and options."""
    yield "| | |"
    yield "|---|---|"
    for param in command.params:
        help_ = prose(getattr(param, "help", None) or "").replace("|", r"\|")
        if param.envvar:
            help_ += f" Environment: `{param.envvar}`."
        yield f"| {usage_of(param)} | {help_}{default(param)} |"
    yield "| `--help` | Show this help. |\n"


def usage_of(parameter: Parameter) -> str:
    """Return a parameter as it is written on the command line."""
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return f"`{metavar}`"
    return " ".join(filter(None, (f"`{parameter.opts[0]}", metavar))) + "`"


def default(parameter: Parameter) -> str:
    """Return a sentence about the default of a parameter, or nothing if it has none."""
    value = parameter.default
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return ""
    return f" Default: {value:,}." if isinstance(value, int | float) else f" Default: {value}."


def prose(text: str | None) -> str:
    """Return a help text as Markdown, with options and URLs as code."""
    paragraphs = [" ".join(lines.split()) for lines in (text or "").split("\n\n")]
    marked = (CODE.sub(r"`\g<0>`", paragraph) for paragraph in paragraphs)
    return "\n\n".join(filter(None, marked))


if __name__ == "__main__":
    main()
