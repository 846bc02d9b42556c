"""The package in a simulation: its clocks, its source of chance and its driver are replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from functools import cache
from random import Random
from typing import Any
from unittest.mock import patch

import asyncpg
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from workflow_store import SqlWorkflowStore, memory
from workflow_store.sql import database, migrate, retry, rows, store
from workflow_store.sql.dialects import POSTGRESQL, EngineOptions, validated_options
from workflow_store.sql.dialects.postgresql import dialect, sessions
from workflow_store.sql.queries.statements import Statements

from . import driver
from .faults import Faults
from .loop import Loop, World
from .server import EPOCH, Server
from .sql import Database

__all__ = ["STATEMENT_TIMEOUT_S", "ProcessDatetime", "new_store", "new_world", "simulated"]

STATEMENT_TIMEOUT_S = 1.0
ENFORCES_FOREIGN_KEYS = True


def _loop() -> Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop


class ProcessDatetime(datetime):
    """`datetime` by the clock of the process, which may differ from the server's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        loop = _loop()
        return datetime.fromtimestamp(EPOCH + loop.time() + loop.skew_s, tz)


class _Time:
    """The module `time`. Decoding rows takes none."""

    @staticmethod
    def monotonic() -> float:
        return _loop().time()

    perf_counter = monotonic


class _Random:
    """The module `random`."""

    @staticmethod
    def random() -> float:
        return _loop().world.random.random()

    @staticmethod
    def getrandbits(count: int) -> int:
        return _loop().world.random.getrandbits(count)


_create_engine = type(POSTGRESQL).create_engine
_engines: dict[tuple[str, str], AsyncEngine] = {}
_used: list[AsyncEngine] = []


def _engine(self: Any, url: URL, options: EngineOptions) -> AsyncEngine:
    """Return the engine of a process, which it has in every simulation: it is costly to create."""
    key = (str(url), str(options))
    engine = _engines.get(key)
    if engine is None:
        engine = _engines[key] = _create_engine(self, url, options)
    _used.append(engine)
    return engine


async def _checked(*_: Any, **__: Any) -> None:
    """Replace the check of the revision: the tables are those of the models."""


_statements = cache(Statements)


def _cached_options(options: EngineOptions) -> EngineOptions:
    """Validate options once: it takes as long as some calls."""
    key = str(options)
    if key not in _options:
        _options[key] = validated_options(options)
    return _options[key]


_options: dict[str, EngineOptions] = {}


@contextmanager
def simulated() -> Iterator[None]:
    """Replace what the package has from outside, while simulations run."""
    replaced: list[tuple[object, str, Any]] = [
        (asyncpg, "connect", driver.connect),
        (migrate, "check", _checked),
        (database, "Statements", _statements),
        (dialect, "time", _Time),
        (memory, "datetime", ProcessDatetime),
        (retry, "random", _Random),
        (sessions, "random", _Random),
        (sessions, "_poll_of", lambda connection: connection),
        (retry, "time", _Time),
        (rows, "datetime", ProcessDatetime),
        (rows, "time", _Time),
        (store, "validated_options", _cached_options),
        (type(POSTGRESQL), "create_engine", _engine),
    ]
    patches = [patch.object(owner, name, new) for owner, name, new in replaced]
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for one in patches:
            one.start()
        yield
    finally:
        for one in reversed(patches):
            one.stop()
        logging.disable(level)
        _engines.clear()


@cache
def _database() -> Database:
    return Database(lambda: EPOCH)


def new_world(seed: int, trace: Any = None) -> World:
    """Return a world with an empty server."""
    world = World(seed, trace)
    tables = _database()
    tables.clear()
    tables.connection.execute(f"PRAGMA foreign_keys={ENFORCES_FOREIGN_KEYS}")
    server = world.server = Server(world, tables)
    tables.clock = server.now
    world.faults = Faults(world.random)
    for engine in _used:  # by the simulation before, which has ended
        engine.sync_engine.dispose(close=False)
    _used.clear()
    return world


def new_store(loop: Loop, pool_size: int, *, pooled: bool) -> SqlWorkflowStore:
    """Return the store object of a process."""
    created = SqlWorkflowStore(
        f"postgresql://{loop.name}/simulated",
        migrate=False,
        pool_size=pool_size,
        pool_timeout_s=2.0,
        connect_timeout_s=1.0,
        statement_timeout_s=STATEMENT_TIMEOUT_S,
        transaction_pooler=pooled,
    )
    _warm_up(created)
    return created


def _warm_up(created: SqlWorkflowStore) -> None:
    """Let the engine ask for the server's version, which it does once."""
    key = (str(created._url.url), str(created._options))
    if key in _engines:
        return
    world = World(0)
    world.random = Random(0)
    world.server = Server(world, _database())
    world.faults = Faults(world.random)
    world.faults.is_healed = True
    loop = Loop(world, "warm-up")

    async def connect() -> None:
        engine = POSTGRESQL.create_engine(created._url.url, created._options)
        async with engine.connect():
            pass
        await engine.dispose()

    task = loop.create_task(connect())
    world.run(task.done, 60.0)
    task.result()
