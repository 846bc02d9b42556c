"""A pgbouncer of the tests' own, in front of the server of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, make_url

from support.waiting import PATIENCE_S

SERVER_CONNECTIONS = 2
"""Fewer than a store's pool, so that clients have to share them."""


class Pgbouncer:
    """A process that can be ended and started again, at the same address."""

    def __init__(self, command: list[str], log: Path, port: int) -> None:
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    def url(self, url: str | URL) -> str:
        """Return the URL of a database of the server through the pooler."""
        given = make_url(url)
        through = URL.create(
            "postgresql", given.username, given.password, "127.0.0.1", self.port, given.database
        )
        return through.render_as_string(hide_password=False)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                said = self._log.read_text()
                assert self._process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def pgbouncer(server: str, *, pool_mode: str = "transaction") -> Iterator[Pgbouncer]:
    """Run a pgbouncer that has few connections to a server for each of its databases."""
    there = make_url(server)
    target = {
        "host": there.query.get("host") or there.host,
        "port": there.port or 5432,
        "user": there.username,
        "password": there.password,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": pool_mode,
        "default_pool_size": SERVER_CONNECTIONS if pool_mode == "transaction" else 20,
        "max_client_conn": 500,
        "client_login_timeout": int(PATIENCE_S),
        "query_wait_timeout": int(PATIENCE_S),
        "server_login_retry": 1,
        "server_idle_timeout": 1,  # for the databases of tests that are over
    }
    if os.geteuid() == 0:  # which it refuses to stay
        folder_of_socket = Path(str(target["host"]))
        settings["user"] = folder_of_socket.owner() if folder_of_socket.is_dir() else "nobody"
    with tempfile.TemporaryDirectory(prefix="wfs_bouncer_") as name:
        folder = Path(name)
        folder.chmod(0o755)
        file = folder / "pgbouncer.ini"
        file.write_text(
            "\n".join(
                [
                    "[databases]",
                    "* = " + " ".join(f"{k}='{v}'" for k, v in target.items() if v),
                    "[pgbouncer]",
                    *(f"{key} = {value}" for key, value in settings.items()),
                ]
            )
        )
        program = shutil.which("pgbouncer")
        assert program is not None
        pooler = Pgbouncer([program, str(file)], folder / "log", port)
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.kill()
