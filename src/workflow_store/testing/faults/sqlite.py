"""The faults of a SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

__all__ = ["lock_holders", "locked_file"]


@contextlib.asynccontextmanager
async def locked_file(path: Path) -> AsyncIterator[None]:
    """Hold the write lock of a file while the block runs, once it can be had."""
    database = sqlite3.connect(path, isolation_level=None, timeout=60)
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
    finally:
        database.close()


def lock_holders(path: Path) -> list[int]:
    """Return the processes that hold the write lock of a file in WAL mode (Linux).

    https://www.sqlite.org/walformat.html#wal_locks, https://man7.org/linux/man-pages/man5/proc_locks.5.html
    """
    shared = path.with_name(path.name + "-shm")
    try:
        status = shared.stat()
    except FileNotFoundError:
        return []
    inode = f":{status.st_ino}"
    holders = []
    for line in Path("/proc/locks").read_text().splitlines():
        _, *blocked, kind, _, mode, pid, file, first, last = line.split()
        writes = kind == "POSIX" and mode == "WRITE" and int(first) <= 120
        if writes and not blocked and file.endswith(inode) and last != "EOF" and int(last) >= 120:
            holders.append(int(pid))
    return holders
