"""A PgBouncer of one's own, which can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url

from .postgresql import free_port

__all__ = ["Pgbouncer"]

_START_S: Final = 300.0


class Pgbouncer:
    """A pooler in transaction mode in front of a server that listens on a port.

    Args:
        url: a database of the server.
        folder: an existing folder for its files.
        connections: the maximum number of connections to the server.
    """

    def __init__(self, url: str | URL, folder: Path, *, connections: int = 4) -> None:
        self._server = make_url(url)
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._file = folder / "pgbouncer.ini"
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": connections,
            "max_client_conn": 500,
            "client_login_timeout": 10,
            "server_login_retry": 1,
            "logfile": folder / "pgbouncer.log",
        }
        if os.geteuid() == 0:  # which it refuses to stay
            settings["user"] = "nobody"
        lines = [f"{name} = {value}" for name, value in settings.items()]
        target = (
            f"* = host={self._server.host} port={self._server.port} user={self._server.username}"
        )
        self._file.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))

    @property
    def url(self) -> str:
        """The URL of the database through the pooler."""
        through = self._server.set(host="127.0.0.1", port=self._port)
        return through.render_as_string(hide_password=False)

    async def start(self) -> None:
        """Start, and wait until connections are accepted.

        Raises:
            TimeoutError: it did not start.
        """
        self._process = await asyncio.create_subprocess_exec(
            "pgbouncer", "--quiet", self._file,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return

    async def kill(self) -> None:
        """End it without notice, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
