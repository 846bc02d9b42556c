"""Filling tables with many rows, faster than a store could write them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

__all__ = ["Table", "fill", "sqlite_path", "time_encoder"]


class Table(NamedTuple):
    """Rows for one table.

    Attributes:
        name: The table.
        columns: Names of the columns, separated by commas.
        rows: A value for each column, as the driver takes it.
    """

    name: str
    columns: str
    rows: Iterable[tuple[Any, ...]]


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, or None for PostgreSQL."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else None


def time_encoder(url: str) -> Callable[[datetime], Any]:
    """Return the function that turns a time in UTC into the driver's value."""
    return _text if sqlite_path(url) else lambda time: time


def _text(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(" ", "microseconds")


async def fill(url: str, tables: Iterable[Table], *, indexes_last: bool = False) -> None:
    """Insert rows into a database that has our tables.

    Args:
        url: The database.
        tables: The rows, parents first.
        indexes_last: Build SQLite's indexes after the rows, which is faster for random keys.
    """
    if path := sqlite_path(url):
        await asyncio.to_thread(_fill_sqlite, path, tables, indexes_last)
    else:
        await _fill_postgresql(url, tables)


def _fill_sqlite(path: Path, tables: Iterable[Table], indexes_last: bool) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")  # a setting of this connection only
    connection.execute("PRAGMA cache_size=-500000")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes if indexes_last else ():
        connection.execute(f'DROP INDEX "{name}"')
    connection.execute("BEGIN")
    for name, columns, rows in tables:
        marks = ", ".join("?" * len(columns.split(",")))
        insert = f"INSERT INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608 - constants
        connection.executemany(insert, rows)
    connection.execute("COMMIT")
    for _, sql in indexes if indexes_last else ():
        connection.execute(sql)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def _fill_postgresql(url: str, tables: Iterable[Table]) -> None:
    connection = await asyncpg.connect(url)
    try:
        # Skips the check of every foreign key:
        # https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SESSION-REPLICATION-ROLE
        await connection.execute("SET session_replication_role = replica")
        for name, columns, rows in tables:
            await connection.copy_records_to_table(name, records=rows, columns=columns.split(", "))
        # Otherwise autovacuum and the checkpointer would do this during the measurement.
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
