"""What the documentation shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
