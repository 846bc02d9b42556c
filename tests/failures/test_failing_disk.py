"""SQLite on a disk that fails; collected where a C compiler is installed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.failures import path_of
from support.processes import PROGRAMS
from support.waiting import PATIENCE_S
from workflow_store import open_store


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


def use(
    library: Path, url: str, switch: Path, system_call: str, *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a process whose disk fails while there is a file `switch`."""
    environment = {
        "LD_PRELOAD": str(library),
        "FAILING": path_of(url).stem + FAILURES[system_call][0],
        "CALLS": system_call,
        "SWITCH": str(switch),
    }
    return subprocess.run(
        [sys.executable, PROGRAMS / "use_failing_disk.py", url, switch, *arguments],
        env=environment, capture_output=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.mark.parametrize("system_call", FAILURES)
def test_a_failing_disk_is_unavailable_and_is_no_damaged_file(
    failing_disk: Path, sqlite_url: str, tmp_path: Path, system_call: str
) -> None:
    """Whether reading, writing or syncing fails; SQLite itself reports the first as damage."""
    _, code, failed = FAILURES[system_call]
    done = use(failing_disk, sqlite_url, tmp_path / "disk-fails", system_call)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    errors = json.loads(done.stdout)
    assert errors.keys() == failed
    for kind, message in errors.values():
        assert kind == "StoreUnavailableError"
        assert code in message
        assert "check the disk and the kernel's log" in message


@pytest.mark.parametrize("system_call", ["pwrite", "sync"])
async def test_a_write_that_the_disk_failed_does_not_appear_after_a_crash(
    failing_disk: Path, sqlite_url: str, tmp_path: Path, system_call: str
) -> None:
    """What was read before the crash is there afterwards."""
    done = await asyncio.to_thread(
        use, failing_disk, sqlite_url, tmp_path / "disk-fails", system_call, "crash"
    )
    assert (done.returncode, done.stderr.decode()) == (-signal.SIGKILL, "")
    async with open_store(sqlite_url) as store:
        step = await store.get_step("run", "step")
    assert step is not None
    assert step.result == json.loads(done.stdout) == "before"
