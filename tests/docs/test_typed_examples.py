"""The Python programs of the documentation, and the examples, pass `mypy --strict`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT
from support.documentation import PAGES, Block, blocks

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
CONFIG = """
[mypy]
strict = True
[mypy-asyncpg.*]
ignore_missing_imports = True
"""


def programs() -> Iterator[Block]:
    """Yield the Python programs of all pages, except changes to a file in a host's folder."""
    for page in PAGES:
        for block in blocks(page):
            is_excerpt = block.why is not None and block.why.startswith("not run")
            is_part_of_host = block.title is not None and "/" in block.title
            if block.language == "python" and not is_excerpt and not is_part_of_host:
                yield block


def test_one_call_of_mypy_reports_nothing(tmp_path: Path) -> None:
    """All programs are checked together, since mypy takes long to start."""
    lines = {}
    for number, block in enumerate(programs()):
        # A program keeps its title if that is free: others on its page may import it.
        name = block.title or f"program_{number}.py"
        file = tmp_path / name
        if file.exists():
            file = tmp_path / f"program_{number}.py"
        file.write_text(block.text, "utf-8")
        lines[file.name] = block.where
    assert len({where.partition(":")[0] for where in lines.values()}) > 5
    (tmp_path / "mypy.ini").write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--no-error-summary",
            "--cache-dir", ROOT / ".mypy_cache" / "examples",
            *sorted(lines), *sorted(EXAMPLES.glob("*.py")),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), lines
