"""Progress of a run on several processes: the files that run, every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

INTERVAL_S = 5.0


class Progress:
    """Prints lines of progress in place of a dot for each test."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter
        self.running: dict[str, None] = {}
        self.total = 0
        self.ended = 0
        self.next_line_at = time.monotonic() + INTERVAL_S

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.total = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("passed", "", "") if report.when == "call" and report.passed else None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = None
        if time.monotonic() >= self.next_line_at:
            self.next_line_at = time.monotonic() + INTERVAL_S
            files = sorted({test.partition("::")[0] for test in self.running})
            share = 100 * self.ended // max(self.total, 1)
            self.reporter.ensure_newline()
            self.reporter.write_line(f"[{share:3}%] {', '.join(files)}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        self.ended += 1
