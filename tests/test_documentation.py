"""What the documentation shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from commands import assert_understood, commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    f"{page.stem}-{number}": block
    for page in PAGES
    for number, block in enumerate(
        re.findall(
            r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
    )
}

COMMAND_LINES = {
    f"{page.stem}: {line}": line
    for page in PAGES
    for line in re.findall(r"(?:^|\| )(workflow-store .*)", page.read_text("utf-8"), re.MULTILINE)
    if not line.endswith("|")  # a row of a table
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_python_example_runs(name: str, tmp_path: Path) -> None:
    """An example is a whole program: it runs on its own, without a warning."""
    program = tmp_path / "example.py"
    program.write_text(BLOCKS[name], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "print(" in BLOCKS[name]:
        assert "completed" in done.stdout


def test_the_readme_names_every_target_and_option_as_it_is() -> None:
    """A command or an option that the README names is there."""
    from workflow_store.sql.dialects import EngineOptions

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for option in EngineOptions.__annotations__:
        assert option in README


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_each_command_line_is_one_that_the_command_takes(name: str) -> None:
    """It names a command, options and arguments as they are."""
    assert_understood(COMMAND_LINES[name])


def test_the_guide_names_every_command() -> None:
    """None is left to be found by chance."""
    shown = " ".join(COMMAND_LINES.values())
    for name in commands():
        assert f"workflow-store {name}" in shown


def test_each_picture_is_there() -> None:
    """Those that a page shows."""
    for page in PAGES:
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), target
