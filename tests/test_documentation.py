"""What the documentation shows works as it is shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_python_example_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    """An example is a whole program: it runs on its own, without a warning."""
    program = tmp_path / "example.py"
    program.write_text(BLOCKS[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "print(" in BLOCKS[number]:
        assert "completed" in done.stdout


def test_the_readme_names_every_target_and_option_as_it_is() -> None:
    """A command or an option that the README names is there."""
    from workflow_store.sql.dialects import EngineOptions

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for option in EngineOptions.__annotations__:
        assert option in README
