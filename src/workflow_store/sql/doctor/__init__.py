"""Examining a database: is it as a store needs it, and what is to be done where it is not.

Each finding has a name that stays the same from version to version, for programs that read
it. On both databases:

| check | what it tells | not good where |
|---|---|---|
| `reachable` | version of the database, time of a round trip | it is slow, or not a database |
| `clock` | how far the database's clock, by which leases go, is from this machine's | over 1 s |
| `revision` | the revision of the tables | it is not the newest |
| `tables` | tables, columns and keys, compared with the models | one is missing or altered |
| `indexes` | indexes, compared with the models | one is missing or altered |
| `oldest_run` | how many runs, and the age of the oldest | it is older than a year |
| `orphans` | steps and claims without a run | there is one |
| `abandoned_claims` | leases that ran out without being released | there is one |
| `running_steps` | steps that are in `running` for long | nobody claims their run |
| `version` | the version of the database | SQLite before 3.35, PostgreSQL before 14 |
| `sizes` | sizes of the tables and of their indexes | never |
| `bloat` | free pages, or dead rows and the last vacuum | there is much of it |

On SQLite:

| check | what it tells | not good where |
|---|---|---|
| `writable` | whether this user may write | not to the file or its folder |
| `file_system` | what kind the file is on; Linux only | it is on a network |
| `journal_mode` | how readers and the writer work together | it is not `wal` |
| `synchronous` | what survives loss of power, opened so | it is less than `FULL` |
| `foreign_keys` | whether they are enforced | they are not |
| `integrity` | whether pages, and up to 64 MiB indexes, are sound | one is not, or over 512 MiB |
| `wal_size` | the size of the log beside the file | it is over 64 MiB |

On PostgreSQL:

| check | what it tells | not good where |
|---|---|---|
| `primary` | whether the server takes writes | it is a standby or read-only |
| `durability` | what survives loss of power | a setting gives it up |
| `pooler` | what lies between here and the server | a pooler in transaction mode |
| `connections` | how many more the server takes | they are fewer than `pool_size` |
| `rights` | those of the role on the tables | one is missing |
| `invalid_indexes` | indexes whose build did not end | there is one |
| `compression` | how large JSON values are compressed | not by lz4 |
| `old_transactions` | what keeps vacuum from its work | one is open for over 5 minutes |
| `wraparound` | the age of the oldest transaction id | over 500 million |

A check is left out where there is nothing for it to look at, such as the rows of a table
that is missing, or a file where the database is in memory. One that takes too long, or that
the database refuses, is a warning that begins with "not told".
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Unpack

from sqlalchemy import URL, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import StoreUnavailableError, WorkflowStoreError
from .. import migrate
from ..dialects import (
    Check,
    EngineOptions,
    ErrorKind,
    Finding,
    StoreDialect,
    Subject,
    Told,
    Verdict,
    bad,
    good,
    validated_options,
    warning,
)
from ..errors import to_store_error
from ..migrate.revisions import read_revision
from ..models import VERSION_TABLE
from ..urls import DatabaseUrl, default_schema, default_url
from . import schema as health

__all__ = ["Finding", "Verdict", "examine"]

LIMIT_S = 5.0
"""How long a check may take."""

SLOW_ROUND_TRIP_S = 0.1
CLOCKS_APART_S = (1.0, 10.0)
_ROUND_TRIPS = 5


async def examine(
    url: str | URL | None = None,
    *,
    schema: str | None = None,
    running_for_s: float = 3600.0,
    **options: Unpack[EngineOptions],
) -> AsyncGenerator[Finding, None]:
    """Examine a database, and give each finding as it is made.

    It only reads: nothing is created, migrated or repaired, and no writer waits for it. A
    check takes some seconds at most, however many runs there are; what is not counted to its
    end is told as "over" so many. It takes one connection, and a second
    one for a moment where a pooler lies between.

    For a host that shows or alerts on it:

        async with aclosing(examine(url)) as findings:
            async for check, verdict, found, advice in findings:
                if verdict is not Verdict.GOOD:
                    log.warning("%s: %s. %s", check, found, advice)

    Args:
        url: the database; by default the environment's, as for `open_store`.
        schema: the PostgreSQL schema of the tables, as for `open_store`.
        running_for_s: seconds; a step that is in `running` for longer may be left behind.
        options: those with which stores are opened on it, to be examined with them; see
            `EngineOptions`.

    Yields:
        What was found, in an order that stays the same; the module's docstring has the names
        of all checks. The texts are for people, and change; they hold no value of a run. A
        name in them that is not ours is quoted, with its control characters escaped.

    Raises:
        StoreUnavailableError: the database cannot be reached, or there is no such file.
        ValueError: the URL is not supported or is `memory://`, or an argument is out of range.
    """
    dialect, parsed, schema = _parsed(url, schema)
    if not 0 < running_for_s < timedelta.max.total_seconds():
        raise ValueError(f"running_for_s={running_for_s!r} is out of range")
    options = validated_options(options)
    database = DatabaseUrl(dialect, parsed)
    database.require_existing()
    engine = dialect.create_engine(
        parsed,
        {
            **options,
            "pool_size": 2,
            "busy_timeout_s": min(LIMIT_S, options["busy_timeout_s"]),
            "transaction_pooler": True,  # one may lie between
        },
    )
    try:
        async with engine.connect() as connection:
            await connection.execution_options(schema_translate_map={None: schema})
            examination = _examination(connection, dialect, schema, running_for_s, options)
            async with aclosing(examination):
                async for finding in examination:
                    yield finding
    except WorkflowStoreError:
        raise
    except Exception as error:
        raised = to_store_error(error, database)
        if isinstance(raised, StoreUnavailableError):
            raise raised from error
        _, code, advice = dialect.classify_error(error)
        yield Finding("reachable", Verdict.BAD, f"{database.name} cannot be read ({code})", advice)
    finally:
        await engine.dispose()


def _parsed(url: str | URL | None, schema: str | None) -> tuple[StoreDialect, URL, str | None]:
    url = url or default_url()
    if str(url).startswith("memory:"):
        raise ValueError("memory:// is gone with its process: there is nothing to examine")
    database = DatabaseUrl.parse(url)
    dialect, parsed = database.dialect, database.url
    return dialect, parsed, (schema or default_schema()) if dialect.supports_schema else None


async def _examination(
    connection: AsyncConnection,
    dialect: StoreDialect,
    schema: str | None,
    running_for_s: float,
    options: EngineOptions,
) -> AsyncGenerator[Finding, None]:
    round_trip_s, ahead_s = await _timed(connection, dialect)
    async with dialect.read_only(connection, LIMIT_S):
        # What is not a database fails here, for `examine` to tell, and all that follows would.
        there = set(await connection.run_sync(lambda c: inspect(c).get_table_names(schema=schema)))
    yield Finding("reachable", *_reachable(connection, dialect, round_trip_s))
    yield Finding("clock", *_clock(round_trip_s, ahead_s))

    found: str | None = None
    differences: health.SchemaDifferences | None = None

    async def revision(connection: AsyncConnection) -> Told:
        nonlocal found
        found = await connection.run_sync(read_revision, schema)
        return health.revision(found)

    async def tables(connection: AsyncConnection) -> Told:
        nonlocal differences
        default = await connection.run_sync(lambda c: inspect(c).default_schema_name)
        named = None if schema == default else schema
        differences = await connection.run_sync(
            health.compared, dialect, migrate.metadata(named), named, there
        )
        return health.tables(differences, found)

    async def indexes(connection: AsyncConnection) -> Told | None:
        return differences and health.indexes(differences, found, connection, metadata)

    metadata = migrate.metadata(schema)
    subject = Subject(
        [table for table in metadata.sorted_tables if table.name in there],
        VERSION_TABLE,
        schema,
        options,
    )
    looks: dict[str, Callable[[AsyncConnection], Awaitable[Told | None]]] = {
        "revision": revision,
        "tables": tables,
        "indexes": indexes,
    }
    for name, (needed, check) in health.about_rows(dialect, running_for_s).items():
        if needed <= there:
            looks[name] = partial(_look, check, subject)
    for name, check in dialect.checks.items():
        looks[name] = partial(_look, check, subject)
    for name, look in looks.items():
        told = await _told(connection, dialect, look)
        if told is not None:
            yield Finding(name, *told)


async def _look(check: Check, subject: Subject, connection: AsyncConnection) -> Told | None:
    return await check(connection, subject)


async def _told(
    connection: AsyncConnection,
    dialect: StoreDialect,
    look: Callable[[AsyncConnection], Awaitable[Told | None]],
) -> Told | None:
    """Look at one thing. Where the database refuses, that is told; where it is gone, raised."""
    try:
        async with dialect.read_only(connection, LIMIT_S):
            return await look(connection)
    except TimeoutError:
        return warning(
            f"not told: it takes over {LIMIT_S:g} seconds", "Look again when there is less to do."
        )
    except WorkflowStoreError:
        raise
    except Exception as error:
        fault, code, advice = dialect.classify_error(error)
        if fault in {ErrorKind.TRANSIENT, ErrorKind.UNAVAILABLE}:
            raise
        return warning(f"not told: the database did not answer ({code})", advice)


async def _timed(connection: AsyncConnection, dialect: StoreDialect) -> tuple[float, float]:
    """Give the time of the quickest round trip, and by how much the database's clock is ahead."""
    quickest_s, ahead_s = float("inf"), 0.0
    async with dialect.read_only(connection, LIMIT_S):
        for _ in range(_ROUND_TRIPS):
            sent_at, began = datetime.now(UTC), time.perf_counter()
            theirs = (await connection.execute(select(dialect.now()))).scalar_one()
            took_s = time.perf_counter() - began
            if took_s < quickest_s:
                # It read its clock halfway, as far as can be told from here.
                quickest_s, ahead_s = took_s, (theirs - sent_at).total_seconds() - took_s / 2
    return quickest_s, ahead_s


def _reachable(connection: AsyncConnection, dialect: StoreDialect, round_trip_s: float) -> Told:
    version = ".".join(map(str, connection.dialect.server_version_info or ()))
    found = f"{dialect.name} {version}, a round trip takes {round_trip_s * 1000:.3g} ms"
    if round_trip_s > SLOW_ROUND_TRIP_S:
        return warning(
            found,
            "Each write waits for one or more: run nearer to the database, or look at its load.",
        )
    return good(found)


def _clock(round_trip_s: float, ahead_s: float) -> Told:
    apart_s = max(0.0, abs(ahead_s) - round_trip_s / 2)
    side = "ahead of" if ahead_s > 0 else "behind"
    some, far = CLOCKS_APART_S
    if apart_s <= some:
        return good(f"within {max(0.001, abs(ahead_s)):.3f} s of this machine's")
    return (bad if apart_s > far else warning)(
        f"the database's clock is {abs(ahead_s):,.1f} s {side} this machine's",
        "Let both machines keep time by NTP: leases go by the database's clock, and the times "
        "of runs and steps by this machine's.",
    )
