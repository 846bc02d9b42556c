"""Faults of a SQLite file and of its disk, which need a run of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ...factory import open_store
from ..history import RecordedStore, Recorder
from .environments import Sqlite
from .round import Round
from .worker import WRITES
from .workers import Worker
from .workload import Clients

__all__ = ["Damaged", "FailingDisk", "SmallDisk"]
__all__ += ["fail_writes", "fill_disk", "truncate", "write_to_read_only"]


class SmallDisk(Sqlite):
    """A file in a file system of its own, which is small. Needs root."""

    expects: ClassVar[tuple[str, ...]] = ("WorkflowStoreError",)

    async def start(self) -> None:
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        await _command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(self.disk))
        self.stack.push_async_callback(_command, "umount", "--lazy", str(self.disk))
        await super().start()

    @property
    def direct_url(self) -> str:
        self.file = self.disk / "store.db"
        return f"sqlite:///{self.file}"


async def fill_disk(round_: Round, rng: random.Random) -> None:
    """Fill the disk 15 times, for up to 1.5 s."""
    assert isinstance(round_.environment, SmallDisk)
    ballast = round_.environment.disk / "ballast"
    for _ in range(15):
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        ballast.unlink()
        round_.result.faults["disk full"] += 1
        await round_.progress()


class FailingDisk(Sqlite):
    """A file whose processes cannot write beyond a size for a time: `EFBIG` from `write`."""

    pause_s: ClassVar[tuple[float, float]] = (0.05, 0.2)

    async def start(self) -> None:
        await super().start()
        self._copying: dict[str, asyncio.subprocess.Process] = {}

    async def history_file(self, name: str) -> Path:
        """Return a pipe, to which the limit does not apply; another process writes the file."""
        pipe = self.folder / f"{name}.pipe"
        os.mkfifo(pipe)
        with (self.folder / f"{name}.jsonl").open("wb") as file:
            self._copying[name] = await asyncio.create_subprocess_exec("cat", pipe, stdout=file)
        return pipe

    async def gone(self, worker: Worker, place: int) -> bool:
        await self._copying[worker.name].wait()
        return True


@contextlib.asynccontextmanager
async def _limited_files(round_: Round, size: int) -> AsyncIterator[None]:
    pids = [worker.pid for worker in round_.workers]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


async def fail_writes(round_: Round, rng: random.Random) -> None:
    """Let writes beyond a size fail 15 times, for up to 1.5 s."""
    assert isinstance(round_.environment, FailingDisk)
    for _ in range(15):
        await asyncio.sleep(rng.uniform(0.3, 1.0))
        async with _limited_files(round_, rng.choice([0, 4096 * 10, 4096 * 200])):
            await asyncio.sleep(rng.uniform(0.2, 1.5))
        round_.result.faults["write failed"] += 1
        await round_.progress()


async def _command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    if await process.wait():
        raise OSError(f"{words[0]} failed")


async def write_to_read_only(round_: Round, rng: random.Random) -> None:
    """Let clients also use a store that opens the file read-only: each write must be refused."""
    assert isinstance(round_.environment, Sqlite)
    recorder = Recorder(round_.environment.folder / "read-only.jsonl", "read-only")
    workload = replace(round_.workers[0].settings.workload, name="read-only")
    url = f"sqlite:///file:{round_.environment.file}?mode=ro&uri=true"
    async with open_store(url, **round_.environment.options) as store:
        clients = Clients(RecordedStore(store, recorder), workload)
        calling = asyncio.create_task(clients.run())
        await asyncio.sleep(10)
        clients.stopping.set()
        await calling
    recorder.close()
    round_.result.faults["write to a read-only file"] += recorder.ended["WorkflowStoreError"]
    for method in WRITES & recorder.ended.keys():
        round_.result.undocumented[f"{method} of a read-only file"] += recorder.ended[method]
    await round_.progress()


class Damaged(Sqlite):
    """A file that is damaged: some of its content can be read, and the rest is an error."""

    expects: ClassVar[tuple[str, ...]] = ("WorkflowStoreError",)


async def truncate(round_: Round, rng: random.Random) -> None:
    """Cut off a part of the open file after a checkpoint."""
    assert isinstance(round_.environment, Damaged)
    file = round_.environment.file
    await asyncio.sleep(5)
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(file, file.stat().st_size // 8192 * 4096)
    round_.result.faults["file truncated"] += 1
    await asyncio.sleep(3)
