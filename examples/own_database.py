"""A separate database for an example: a SQLite file, or a schema on a PostgreSQL server.

An example takes over every abandoned run, and creates tables with common names. So it uses a
database of its own, and removes it afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError


class Place(NamedTuple):
    """The database of an example, and a folder for its files."""

    url: str
    schema: str | None
    folder: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that uses this database too."""
        own = {"WORKFLOW_STORE_URL": self.url, "WORKFLOW_STORE_SCHEMA": self.schema or ""}
        return {**os.environ, **own}


def run(show: Callable[[Place], Coroutine[Any, Any, bool]], *, name: str, about: str) -> int:
    """Run an example on the database of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--url",
        type=_postgresql,
        help="a PostgreSQL server, on which to create a schema; by default a SQLite file",
    )
    url: URL | None = parser.parse_args().url

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # run the cleanup
    with tempfile.TemporaryDirectory(prefix=f"{name}_") as folder:
        if url is None:
            place = Place(f"sqlite:///{folder}/store.db", None, Path(folder))
            return 0 if asyncio.run(show(place)) else 1
        text = url.render_as_string(hide_password=False)
        place = Place(text, f"{name}_{uuid4().hex}", Path(folder))
        try:
            return 0 if asyncio.run(show(place)) else 1
        finally:
            asyncio.run(_drop_schema(place))


def _postgresql(text: str) -> URL:
    # The message does not contain the text, which may contain a password.
    error = argparse.ArgumentTypeError("must be postgresql://user:password@host/database")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise error from None
    if url.get_backend_name() not in {"postgres", "postgresql"}:
        raise error
    return url.set(drivername="postgresql")


async def _drop_schema(place: Place) -> None:
    connection = await asyncpg.connect(place.url)
    try:
        await connection.execute(f"DROP SCHEMA IF EXISTS {place.schema} CASCADE")
    finally:
        await connection.close()
