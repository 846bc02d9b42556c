"""SQLite on a disk that fails; collected where a C compiler is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.failures import path_of
from support.processes import PROGRAMS
from support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that lets system calls fail."""
    library = tmp_path_factory.mktemp("failing_disk") / "failing_disk.so"
    source = PROGRAMS.with_name("failing_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


WRITES = {"upsert_step", "claim_run"}
FAILURES = {
    "pread": (".db", "SQLITE_IOERR_", WRITES | {"get_run", "list_runs"}),
    "pwrite": (".db-wal", "SQLITE_IOERR_WRITE", WRITES),
    "sync": (".db-wal", "SQLITE_IOERR_FSYNC", WRITES),
}
"""For each system call: the file on which it fails, the code, and the calls that fail."""


@pytest.mark.parametrize("system_call", FAILURES)
def test_a_failing_disk_is_unavailable_and_is_no_damaged_file(
    failing_disk: Path, sqlite_url: str, tmp_path: Path, system_call: str
) -> None:
    """Whether reading, writing or syncing fails; SQLite itself reports the first as damage."""
    failing, code, failed = FAILURES[system_call]
    switch = tmp_path / "disk-fails"
    environment = {
        "LD_PRELOAD": str(failing_disk),
        "FAILING": path_of(sqlite_url).stem + failing,
        "CALLS": system_call,
        "SWITCH": str(switch),
    }
    program = PROGRAMS / "use_failing_disk.py"
    done = subprocess.run(
        [sys.executable, program, sqlite_url, switch],
        env=environment, capture_output=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr.decode()) == (0, "")
    errors = json.loads(done.stdout)
    assert errors.keys() == failed
    for kind, message in errors.values():
        assert kind == "StoreUnavailableError"
        assert code in message
        assert "check the disk and the kernel's log" in message
