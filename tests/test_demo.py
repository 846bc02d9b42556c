"""The demo, as its users run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[1]
DEFINITION = json.loads((ROOT / "examples/workflows/stdlib_report.json").read_text())
STEP_IDS = [step["id"] for step in DEFINITION["steps"]]


def run_demo(folder: Path, *arguments: str) -> list[str]:
    """Run the demo, which must succeed in silence and leave no file; give what it prints."""
    # Traced for coverage, the work of the steps takes three times as long.
    untraced = {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, ROOT / "examples/resume_after_crash.py", *arguments],
        env={**untraced, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert list(folder.iterdir()) == []
    return done.stdout.splitlines()


def check_story(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Check what is the same wherever it was killed; give what became of each step."""
    text = "\n".join(lines)
    assert re.search(r"Process \d+ started the run and was killed with SIGKILL\.\n", text)
    assert re.search(r"Process \d+ resumed the run and ended with exit code 0\.\n", text)
    assert "Step choose asked for input and was given {'packages': 8}." in lines
    assert "ok      0 steps repeated" in lines
    assert "ok      report identical to the run without a crash" in lines
    assert "FAILED" not in text

    rows = (re.fullmatch(r"(\S+) +(\w+) +(skipped|answered|ran|ran again)", s) for s in lines)
    steps = {row[1]: (row[2], row[3]) for row in rows if row}
    assert list(steps) == STEP_IDS
    for status, then in steps.values():
        assert (status == "completed") == (then == "skipped")
    return steps


def test_sqlite(tmp_path: Path) -> None:
    """Killed half-way while steps are running, the run is resumed from a SQLite file."""
    lines = run_demo(tmp_path)
    steps = check_story(lines)
    completed = [status for status, _ in steps.values()].count("completed")
    again = [then for _, then in steps.values()].count("ran again")
    assert 9 <= completed < len(STEP_IDS)
    assert again > 0
    assert f"Steps completed before the kill: {completed}" in lines
    assert f"Steps running at the kill, without a result, so run again: {again}" in lines


async def test_postgresql(tmp_path: Path, empty_postgres_url: str) -> None:
    """Killed while it waits for an answer, the run is resumed from a server, and then deleted."""
    lines = run_demo(tmp_path, "--url", empty_postgres_url, "--kill-after", "15")
    steps = check_story(lines)
    assert steps["merge"] == ("completed", "skipped")
    assert steps["choose"] == ("input_required", "answered")
    assert steps["report"] == ("pending", "ran")

    connection = await asyncpg.connect(empty_postgres_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM runs") == 0
    finally:
        await connection.close()


def test_definition() -> None:
    """A step stands after those that it depends on, and either runs or asks."""
    for place, step in enumerate(DEFINITION["steps"]):
        assert set(step.get("depends_on", [])) <= set(STEP_IDS[:place])
        assert ("run" in step) != ("ask" in step)
    assert len(set(STEP_IDS)) == len(STEP_IDS)
