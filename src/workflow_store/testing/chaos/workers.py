"""The processes that use a store while it fails."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from .. import faults
from .worker import Report, Settings

__all__ = ["Worker"]


class Worker:
    """A process that can be killed, paused and replaced by another.

    Attributes:
        name: the name of its store object.
        report: what it has done.
        killed: whether it was killed.
    """

    def __init__(self, settings: Settings, log: Path, python: str) -> None:
        self.settings = settings
        self.python = python
        self.name = settings.workload.name
        self.report = Report(ended={}, undocumented={})
        self.killed = False
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def next_name(self) -> str:
        """The name of the store object of a process that takes the place of this one."""
        place, generation = self.name.split(".")
        return f"{place}.{int(generation) + 1}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self.python, "-m", "workflow_store.testing.chaos.worker",
                self.settings.encoded(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, limit=1 << 24,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.endswith(b"\n"):
                self.report = Report(**json.loads(line))

    async def kill(self) -> None:
        """End the process without notice."""
        self.killed = True
        faults.kill(self.pid)
        await self.ended()

    async def stop(self, within_s: float) -> bool:
        """Let its clients end, and return whether the process ended in time and in order."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(within_s):
                return await self.ended() == 0
        except TimeoutError:
            self._process.send_signal(signal.SIGCONT)
            await self.kill()
            return False

    async def ended(self) -> int:
        """Wait for the end of the process, and return its status."""
        assert self._process is not None
        assert self._reading is not None
        await self._reading
        return await self._process.wait()


def next_generation(worker: Worker, log: Path, file: Path, url: str) -> Worker:
    """Return a process that takes the place of one that has ended."""
    workload = replace(worker.settings.workload, name=worker.next_name)
    settings = replace(worker.settings, workload=workload, file=str(file), url=url)
    return Worker(settings, log, worker.python)
