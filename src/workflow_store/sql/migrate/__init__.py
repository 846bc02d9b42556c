"""The schema's revisions from Python: upgrade, downgrade, current, check, offline SQL.

The same revisions are what `alembic upgrade head` runs from a checkout. They lie beside the
source in a checkout and inside the package in an installed wheel.

All functions that talk to a database are coroutines, for use inside a running event loop.
They take a URL, or an `AsyncEngine` that is neither configured nor disposed. Replicas may
migrate at the same moment: one does, the others wait and find nothing left to do.
"""

from __future__ import annotations

import asyncio
import io
import logging
import shlex
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ...errors import InvalidStateError, SchemaMismatchError, StoreUnavailableError
from ..dialects import EngineOptions, MigrationRunner, validated_options
from ..errors import translate_errors
from ..models import REVISION, Base
from ..urls import DatabaseUrl, default_schema
from .host import include_name, include_object
from .revisions import (
    known_revisions,
    on_version_apply,
    read_revision,
    script_location,
    version_location,
)

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "check",
    "current",
    "downgrade",
    "include_name",
    "include_object",
    "offline_sql",
    "on_version_apply",
    "upgrade",
    "version_location",
]

LOCK_TIMEOUT_S = 60.0
"""How long a migration waits for another one, and for locks on tables, before it fails."""

_LONGEST_S = 86_400.0

_LOG = logging.getLogger(__name__)

# -- for everyone ----------------------------------------------------------------------


async def upgrade(
    url_or_engine: str | URL | AsyncEngine | None = None,
    revision: str = "head",
    *,
    schema: str | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> str | None:
    """Bring a database to a newer revision; where it is there already, do nothing.

    Args:
        url_or_engine: the database; by default the environment's, as for `open_store`.
        revision: `"head"`, or the id of a revision.
        schema: the PostgreSQL schema of the tables; it is created where it is missing.
        lock_timeout_s: seconds to wait for another migration, and for a table's lock.

    Returns:
        The revision that the database was at; None where it had none.

    Raises:
        SchemaMismatchError: the database is at a revision that this version does not know.
        StoreUnavailableError: the database cannot be reached, or the lock stayed taken.
        InvalidStateError: there is no such revision.
        ValueError: the URL is not supported.
    """
    return await _migrate("upgrade", url_or_engine, revision, schema, lock_timeout_s)


async def downgrade(
    url_or_engine: str | URL | AsyncEngine | None,
    revision: str,
    *,
    schema: str | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> str | None:
    """Bring a database back to an older revision; `"base"` drops the tables with all runs.

    Arguments, what is returned and errors are those of `upgrade`.
    """
    return await _migrate("downgrade", url_or_engine, revision, schema, lock_timeout_s)


async def current(
    url_or_engine: str | URL | AsyncEngine | None = None, *, schema: str | None = None
) -> str | None:
    """Tell the revision of a database, None where it has none.

    Raises:
        StoreUnavailableError: the database cannot be reached, or there is no such file.
        ValueError: the URL is not supported.
    """
    async with _connect(url_or_engine) as (connection, url):
        return await _read(connection, url, schema, validated_options({}))


async def check(
    url_or_engine: str | URL | AsyncEngine | None = None,
    *,
    schema: str | None = None,
    options: EngineOptions | None = None,
) -> None:
    """Make sure that a database is at the revision that this version needs.

    Raises:
        SchemaMismatchError: it is not; the message gives the command that mends it.
        StoreUnavailableError: the database cannot be reached, or there is no such file.
        ValueError: the URL is not supported.
    """
    async with _connect(url_or_engine) as (connection, url):
        revision = await _read(connection, url, schema, options or validated_options({}))
    if revision != REVISION:
        raise _mismatch_error(revision, url, schema)


async def offline_sql(
    url: str | URL | None = None,
    revision: str = "head",
    *,
    schema: str | None = None,
) -> str:
    """Give the SQL of an upgrade, for a database team to apply.

    Args:
        url: names the kind of database; it is not connected to.
        revision: `"head"`, a revision, or a range such as `"0001:head"`.
        schema: the PostgreSQL schema of the tables.

    Raises:
        InvalidStateError: there is no such revision.
        ValueError: the URL is not supported.
    """
    from alembic import command
    from alembic.util import CommandError

    output = io.StringIO()
    config = _config(url=url, schema=schema)
    config.output_buffer = output
    DatabaseUrl.parse(url)
    _check_form(revision, parts=2)
    async with _process_lock(LOCK_TIMEOUT_S):
        try:
            command.upgrade(config, revision, sql=True)
        except CommandError as error:
            raise InvalidStateError(f"revision: {revision!r} names none") from error
    return output.getvalue()


# -- for the store and migrations/env.py ---------------------------------------------------


def metadata(schema: str | None) -> MetaData:
    """Give the tables as they are in a schema, to compare a database with."""
    if schema is None:
        return Base.metadata
    placed = MetaData(naming_convention=Base.metadata.naming_convention)
    for ours in Base.metadata.sorted_tables:
        ours.to_metadata(placed, schema=schema)
    return placed


@asynccontextmanager
async def migrating(
    url_or_engine: str | URL | AsyncEngine | None,
    schema: str | None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> AsyncIterator[MigrationRunner]:
    """Give what runs a migration while no other one of these tables runs."""
    async with (
        _connect(url_or_engine, creates=True) as (connection, url),
        url.dialect.migration_lock(connection, schema, lock_timeout_s) as run,
    ):
        yield run


# -- inside ----------------------------------------------------------------------------


async def _read(
    connection: AsyncConnection, url: DatabaseUrl, schema: str | None, options: EngineOptions
) -> str | None:
    """Return the revision of a database, within the limits of a store's options."""
    async with url.dialect.transaction(connection, options, writes=False):
        return await connection.run_sync(read_revision, _schema(url, schema))


async def _migrate(
    direction: str,
    url_or_engine: str | URL | AsyncEngine | None,
    revision: str,
    schema: str | None,
    lock_timeout_s: float,
) -> str | None:
    from alembic import command
    from alembic.util import CommandError

    _check_form(revision, parts=1)
    if not 0 <= lock_timeout_s <= _LONGEST_S:
        raise InvalidStateError(f"lock_timeout_s: {lock_timeout_s!r} is not 0 to {_LONGEST_S:g}")
    creates = direction == "upgrade"
    async with _connect(url_or_engine, creates=creates) as (connection, url):
        schema = _schema(url, schema)

        def run(sync_connection: Connection) -> None:
            at = read_revision(sync_connection, schema)
            if at is None and revision == "base":
                return  # Alembic would first make its version table
            config = _config(url=sync_connection.engine.url, schema=schema)
            config.attributes["connection"] = sync_connection
            try:
                getattr(command, direction)(config, revision)
            except CommandError as error:
                if at is not None and at not in known_revisions():
                    raise _mismatch_error(at, url, schema) from error
                raise InvalidStateError(
                    f"revision: cannot {direction} {url.name} from {at or 'base'} to "
                    f"{revision!r}, there is no such revision on that way"
                ) from error

        async with (
            url.dialect.migration_lock(connection, schema, lock_timeout_s) as run_migration,
            # Inside, so that whoever waits for a database keeps no other one waiting.
            _process_lock(lock_timeout_s),
        ):
            found = await connection.run_sync(read_revision, schema)
            await run_migration(run)
            reached = await connection.run_sync(read_revision, schema)
        if reached != found:
            _LOG.info(
                "%s: migrated from revision %s to %s", url.name, found or "none", reached or "none"
            )
        return found


_ALEMBIC = threading.Lock()


@asynccontextmanager
async def _process_lock(timeout_s: float) -> AsyncIterator[None]:
    """Let one migration at a time run in this process.

    Alembic keeps the migration that runs in global variables (`alembic.op`), which tasks and
    threads share. The lock is polled, since the one who holds it may be on this event loop.
    """
    deadline = time.monotonic() + timeout_s
    while not _ALEMBIC.acquire(blocking=False):
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                "Another migration in this process has been running for over "
                f"{timeout_s:g} seconds. Nothing was changed; wait for it to end."
            )
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _ALEMBIC.release()


@asynccontextmanager
async def _connect(
    url_or_engine: str | URL | AsyncEngine | None, *, creates: bool = False
) -> AsyncIterator[tuple[AsyncConnection, DatabaseUrl]]:
    """Yield a connection and its URL; translate errors inside the block."""
    if isinstance(url_or_engine, AsyncEngine):
        engine, url = url_or_engine, DatabaseUrl.of_engine(url_or_engine)
    else:
        url = DatabaseUrl.parse(url_or_engine)
        if not creates:
            url.require_existing()
        # There may be a pooler in transaction mode in between.
        options = validated_options({"transaction_pooler": True})
        engine = url.dialect.create_engine(url.url, options)
    try:
        with translate_errors(url):
            async with engine.connect() as connection:
                yield connection, url
    finally:
        if engine is not url_or_engine:
            await engine.dispose()


def _check_form(revision: str, *, parts: int) -> None:
    """Refuse what Alembic would stumble over."""
    named = revision.split(":")
    if not all(named) or len(named) > parts:
        raise InvalidStateError(f"revision: {revision!r} names none")


def _schema(url: DatabaseUrl, schema: str | None) -> str | None:
    return (schema or default_schema()) if url.dialect.supports_schema else None


def _mismatch_error(found: str | None, url: DatabaseUrl, schema: str | None) -> SchemaMismatchError:
    option = f" --schema {shlex.quote(schema)}" if schema else ""
    x_option = f" -x {shlex.quote(f'schema={schema}')}" if schema else ""
    if found is None:
        state = "has no tables of a workflow store"
    elif found > REVISION:
        return SchemaMismatchError(
            f"{url.name} is at revision {found}, which is newer than this version of "
            f"workflow-store, made for {REVISION}: install the version that migrated it, or a "
            "newer one.",
            found=found,
            expected=REVISION,
        )
    else:
        state = f"is at revision {found}, and this version of workflow-store needs {REVISION}"
    return SchemaMismatchError(
        f"{url.name} {state}. Bring it up to date with `workflow-store migrate{option}` or "
        f"`alembic{x_option} upgrade head`, or open the store with migrate=True.",
        found=found,
        expected=REVISION,
    )


def altered_tables_error(url: DatabaseUrl) -> SchemaMismatchError:
    """Give the error for a database whose revision is right and whose tables are not."""
    return SchemaMismatchError(
        f"{url.name} is at revision {REVISION}, but its tables were dropped or altered "
        "since: restore them from a backup.",
        found=REVISION,
        expected=REVISION,
    )


def _config(*, url: str | URL | None = None, schema: str | None = None) -> Config:
    """Make a configuration that needs no file; nothing secret passes through its parser."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    config.attributes["schema"] = schema
    return config
