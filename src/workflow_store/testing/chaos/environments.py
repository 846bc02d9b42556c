"""The databases that `make chaos` lets fail."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import make_url

from ...sql import migrate
from .. import faults
from .workers import Worker

__all__ = ["Environment", "Postgresql", "Sqlite"]


class Environment(ABC):
    """A database, what stands in front of it, and the ways to it.

    Args:
        folder: for its files.
    """

    options: ClassVar[dict[str, Any]]
    """The options of the stores: short timeouts, so that a fault takes little time."""
    has_our_clock: ClassVar[bool] = True
    """Whether the clock of the database is that of this machine."""
    expects: ClassVar[tuple[str, ...]] = ()
    """The errors, with the beginning of their messages, that are right here only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = contextlib.AsyncExitStack()

    @abstractmethod
    async def start(self) -> None:
        """Start the servers and create the tables."""

    @abstractmethod
    def url(self, place: int, name: str) -> str:
        """Return the URL for the store of a name at a place: directly, or through a proxy."""

    @abstractmethod
    def options_of(self, place: int) -> dict[str, Any]:
        """Return the options of the store at a place."""

    def interpreter(self, python: str) -> str:
        """Return the program that runs a process, instead of Python itself."""
        return python

    async def history_file(self, name: str) -> Path:
        """Return the file in which the process of a name records its calls."""
        return self.folder / f"{name}.jsonl"

    @property
    @abstractmethod
    def direct_url(self) -> str:
        """The URL of the database itself."""

    @abstractmethod
    async def gone(self, worker: Worker, place: int) -> bool:
        """Wait until no call of a process that ended can take effect; False if unknown."""


class Postgresql(Environment):
    """A server of its own, a proxy, and a PgBouncer if that is installed."""

    options: ClassVar[dict[str, Any]] = {
        "statement_timeout_s": 1.0,
        "connect_timeout_s": 2.0,
        "pool_timeout_s": 5.0,
    }

    async def start(self) -> None:
        self.folder.chmod(0o755)
        self.server = faults.PostgresqlServer(self.folder, settings={"max_connections": "200"})
        await self.server.create()
        self.stack.push_async_callback(self.server.stop)
        self._url = self.server.url("postgres")
        await migrate.upgrade(self._url)
        self.proxy = await self.stack.enter_async_context(faults.PostgresqlProxy(self._url))
        self.pooler = None
        if shutil.which("pgbouncer"):
            self.pooler = faults.Pgbouncer(self._url, self.folder)
            await self.pooler.start()
            self.stack.push_async_callback(self.pooler.kill)

    def _is_pooled(self, place: int) -> bool:
        return self.pooler is not None and place % 4 == 2

    def options_of(self, place: int) -> dict[str, Any]:
        return {**self.options, "transaction_pooler": self._is_pooled(place)}

    def url(self, place: int, name: str) -> str:
        if self._is_pooled(place):
            assert self.pooler is not None
            return self.pooler.url
        url = self.proxy.url if place % 4 == 1 else self._url
        named = make_url(url).update_query_dict({"application_name": name})
        return named.render_as_string(hide_password=False)

    @property
    def direct_url(self) -> str:
        return self._url

    async def gone(self, worker: Worker, place: int) -> bool:
        if self._is_pooled(place):
            return False  # its sessions serve others, too
        while await faults.sessions(self._url, "application_name = $1", worker.name):
            await asyncio.sleep(0.01)
        return True


class Sqlite(Environment):
    """A file."""

    options: ClassVar[dict[str, Any]] = {"busy_timeout_s": 1.0, "pool_timeout_s": 5.0}

    async def start(self) -> None:
        self.file = self.folder / "store.db"
        await migrate.upgrade(self.direct_url)

    def options_of(self, place: int) -> dict[str, Any]:
        return self.options

    def url(self, place: int, name: str) -> str:
        return self.direct_url

    @property
    def direct_url(self) -> str:
        return f"sqlite:///{self.file}"

    async def gone(self, worker: Worker, place: int) -> bool:
        return True
