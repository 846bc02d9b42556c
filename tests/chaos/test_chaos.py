"""Short runs of `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_ten_seconds_of_faults_leave_every_answer_true(database: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "workflow_store.testing.chaos", "--database", database,
         "--seconds", "10", "--json", str(report)],
        check=False, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    result = json.loads(report.read_text())[database]
    assert result["writes"] > 0
    assert result["faults"]
    assert "make chaos ARGS=" in done.stdout
