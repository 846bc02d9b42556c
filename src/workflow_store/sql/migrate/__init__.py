"""Migrations from Python: upgrade, downgrade, current, check, offline SQL.

They run the same revisions as `alembic upgrade head` in a checkout. The revisions are beside
the source in a checkout, and inside the package in an installed wheel.

The functions that use a database are coroutines and take a URL, or an `AsyncEngine` that is
neither configured nor disposed. Replicas may migrate at the same moment: one migrates, and the
others wait and find nothing left to do.
"""

from __future__ import annotations

import asyncio
import io
import logging
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
from ..urls import DatabaseUrl, default_schema, default_url
from .host import include_name, include_object, on_version_apply, version_location
from .revisions import is_newer, mismatch_error, read_revision, script_location

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "check", "current", "downgrade", "include_name", "include_object", "offline_sql",
    "on_version_apply", "upgrade", "version_location",
]  # fmt: skip

LOCK_TIMEOUT_S = 60.0
"""How long a migration waits for another migration and for locks on tables before it fails."""

_MAX_WAIT_S = 86_400.0

_LOG = logging.getLogger("workflow_store.migrate")

# -- public ----------------------------------------------------------------------------


async def upgrade(
    url_or_engine: str | URL | AsyncEngine | None = None,
    revision: str = "head",
    *,
    schema: str | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> str | None:
    """Upgrade a database to a newer revision, or do nothing if it is there already.

    Args:
        url_or_engine: the database; by default the environment's, as for `open_store`.
        revision: `"head"`, or the id of a revision.
        schema: the PostgreSQL schema of the tables; it is created if it is missing.
        lock_timeout_s: seconds to wait for another migration, and for a lock on a table.

    Returns:
        The revision before the upgrade, None if there was none.

    Raises:
        SchemaMismatchError: the database is at a revision that this version does not know.
        StoreUnavailableError: the database cannot be reached, or a lock was not released in time.
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
    """Downgrade a database to an older revision; `"base"` drops the tables with all runs.

    Arguments, return value and errors are those of `upgrade`.
    """
    return await _migrate("downgrade", url_or_engine, revision, schema, lock_timeout_s)


async def current(
    url_or_engine: str | URL | AsyncEngine | None = None, *, schema: str | None = None
) -> str | None:
    """Return the revision of a database, or None if it has none.

    Raises:
        StoreUnavailableError: the database cannot be reached, or the file does not exist.
        ValueError: the URL is not supported.
    """
    options = validated_options({})
    async with _connect(url_or_engine, options) as (connection, url):
        return await _read(connection, url, schema, options)


async def check(
    url_or_engine: str | URL | AsyncEngine | None = None,
    *,
    schema: str | None = None,
    options: EngineOptions | None = None,
) -> None:
    """Check that a database is at the revision that this version needs.

    Args:
        url_or_engine: the database; by default the environment's, as for `open_store`.
        schema: the PostgreSQL schema of the tables.
        options: the timeouts of the check, as for a store.

    Raises:
        SchemaMismatchError: it is not; the message gives the command that fixes it.
        StoreUnavailableError: the database cannot be reached, or the file does not exist.
        ValueError: the URL is not supported.
    """
    options = validated_options(options or {})
    async with _connect(url_or_engine, options) as (connection, url):
        revision = await _read(connection, url, schema, options)
    if revision != REVISION:
        raise mismatch_error(revision, url.name, schema)


async def offline_sql(
    url: str | URL | None = None, revision: str = "head", *, schema: str | None = None
) -> str:
    """Return the SQL of an upgrade, for a database team to apply.

    Args:
        url: the kind of database, such as `"postgresql://"`; no connection is made.
        revision: `"head"`, a revision, or a range such as `"ws_0001:head"`.
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
    DatabaseUrl.parse(url or default_url())
    _check_form(revision, parts=2)
    async with _process_lock(LOCK_TIMEOUT_S):
        try:
            command.upgrade(config, revision, sql=True)
        except CommandError as error:
            raise _no_such_revision(revision) from error
    return output.getvalue()


# -- for the store and migrations/env.py -----------------------------------------------


def metadata(schema: str | None) -> MetaData:
    """Return the tables of the models, placed in a schema."""
    if schema is None:
        return Base.metadata
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in Base.metadata.sorted_tables:
        table.to_metadata(metadata, schema=schema)
    return metadata


@asynccontextmanager
async def migrating(
    url_or_engine: str | URL | AsyncEngine | None,
    schema: str | None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> AsyncIterator[MigrationRunner]:
    """Hold the migration lock of these tables, and yield what runs a migration."""
    async with (
        _connect(url_or_engine, creates=True) as (connection, url),
        url.dialect.migration_lock(connection, schema, lock_timeout_s) as run,
    ):
        yield run


# -- private ---------------------------------------------------------------------------


async def _read(
    connection: AsyncConnection, url: DatabaseUrl, schema: str | None, options: EngineOptions
) -> str | None:
    """Return the revision of a database, within the timeouts of a store's options."""
    async with url.dialect.transaction(connection, options):
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
    if not 0 <= lock_timeout_s <= _MAX_WAIT_S:
        raise InvalidStateError(
            f"lock_timeout_s: must be between 0 and {_MAX_WAIT_S:g}, not {lock_timeout_s!r}"
        )
    creates = direction == "upgrade"
    async with _connect(url_or_engine, creates=creates) as (connection, url):
        schema = _schema(url, schema)

        def run(sync_connection: Connection) -> None:
            start = read_revision(sync_connection, schema)
            if start is None and revision == "base":
                return  # Alembic would create its version table first
            config = _config(url=sync_connection.engine.url, schema=schema)
            config.attributes["connection"] = sync_connection
            try:
                getattr(command, direction)(config, revision)
            except CommandError as error:
                if start is not None and is_newer(start):
                    raise mismatch_error(start, url.name, schema) from error
                raise InvalidStateError(
                    f"revision: cannot {direction} {url.name} from {start or 'base'} to "
                    f"{revision!r}: there is no {direction} path between these revisions"
                ) from error

        async with (
            url.dialect.migration_lock(connection, schema, lock_timeout_s) as run_migration,
            # Inside, so that waiting for one database does not block migrations of others.
            _process_lock(lock_timeout_s),
        ):
            before = await connection.run_sync(read_revision, schema)
            await run_migration(run)
            after = await connection.run_sync(read_revision, schema)
        if after is None and before is not None:
            _LOG.info("%s: dropped the tables", url.name)
        elif before is None and after is not None:
            _LOG.info("%s: created the tables at revision %s", url.name, after)
        elif after != before:
            _LOG.info("%s: migrated from revision %s to %s", url.name, before, after)
        return before


_ALEMBIC = threading.Lock()


@asynccontextmanager
async def _process_lock(timeout_s: float) -> AsyncIterator[None]:
    """Allow one migration at a time in this process.

    Alembic keeps the running migration in global variables (`alembic.op`), which tasks and
    threads share. The lock is polled, since its holder may run on this event loop.
    """
    deadline = time.monotonic() + timeout_s
    while not _ALEMBIC.acquire(blocking=False):
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                "Another migration in this process has been running for over "
                f"{timeout_s:g} seconds. Nothing was changed: try again when it has finished."
            )
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _ALEMBIC.release()


@asynccontextmanager
async def _connect(
    url_or_engine: str | URL | AsyncEngine | None,
    options: EngineOptions | None = None,
    *,
    creates: bool = False,
) -> AsyncIterator[tuple[AsyncConnection, DatabaseUrl]]:
    """Yield a connection and its URL; translate errors inside the block."""
    if isinstance(url_or_engine, AsyncEngine):
        engine, url = url_or_engine, DatabaseUrl.of_engine(url_or_engine)
    else:
        url = DatabaseUrl.parse(url_or_engine or default_url())
        if not creates:
            url.require_existing()
        # There may be a pooler in transaction mode in between.
        options = {**(options or validated_options({})), "transaction_pooler": True}
        engine = url.dialect.create_engine(url.url, options)
    try:
        with translate_errors(url):
            async with engine.connect() as connection:
                yield connection, url
    finally:
        if engine is not url_or_engine:
            await engine.dispose()


def _check_form(revision: str, *, parts: int) -> None:
    """Reject what Alembic would answer with an error other than `CommandError`."""
    ids = revision.split(":")
    if not all(ids) or len(ids) > parts:
        raise _no_such_revision(revision)


def _no_such_revision(revision: str) -> InvalidStateError:
    return InvalidStateError(f"revision: there is no revision {revision!r}")


def _schema(url: DatabaseUrl, schema: str | None) -> str | None:
    return (schema or default_schema()) if url.dialect.supports_schema else None


def altered_tables_error(url: DatabaseUrl) -> SchemaMismatchError:
    """Return the error for a database at the right revision whose tables are not right."""
    return SchemaMismatchError(
        f"{url.name} is at revision {REVISION}, but its tables have since been "
        "dropped or altered: restore them from a backup.",
        found=REVISION,
        expected=REVISION,
    )


def _config(*, url: str | URL | None = None, schema: str | None = None) -> Config:
    """Return a configuration without a file; no secret passes through Alembic's parser."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    config.attributes["schema"] = schema
    return config
