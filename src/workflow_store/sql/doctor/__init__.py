"""Examines a database, and suggests fixes.

The names of the checks stay the same from version to version, so programs can rely on them.
On both databases:

| check | reports | not good if |
|---|---|---|
| `reachable` | the database and the time of a round trip | it is slow, or no database |
| `clock` | the database's clock, which leases use, and this machine's | they differ by over 1 s |
| `revision` | the revision of the tables | it is not the newest |
| `tables` | tables, columns and keys, compared with the models | one is missing or altered |
| `indexes` | indexes, compared with the models | one is missing or altered |
| `oldest_run` | the number of runs and the age of the oldest | it is older than a year |
| `orphans` | steps and claims without a run | there are any |
| `damaged_rows` | values that no store wrote, in the newest rows | there are any |
| `abandoned_claims` | leases that expired without being released | there are any |
| `running_steps` | steps in status `running` for long | their run is not claimed |
| `version` | the version of the database | SQLite before 3.35, PostgreSQL before 14 |
| `sizes` | the sizes of the tables and of their indexes | never |
| `bloat` | free pages, or dead rows and the last vacuum | there are many |

On SQLite:

| check | reports | not good if |
|---|---|---|
| `writable` | whether this user may write | the file or its folder is not writable |
| `file_permissions` | whether other users can read the file and its log | they can |
| `file_system` | the type of the file system; Linux only | it is a network file system |
| `journal_mode` | whether readers and the writer block each other | it is not `wal` |
| `synchronous` | whether commits of a store survive a power loss | it is less than `FULL` |
| `foreign_keys` | whether they are enforced | they are not |
| `integrity` | whether pages, and up to 64 MiB indexes, are intact | one is not, or over 512 MiB |
| `wal_size` | the size of the write-ahead log | it is over 64 MiB |

On PostgreSQL:

| check | reports | not good if |
|---|---|---|
| `encoding` | the encoding of the database | it is not UTF8 |
| `primary` | whether the server accepts writes | it is a standby or read-only |
| `durability` | the settings that make commits survive a power loss | one is off |
| `pooler` | a pooler between this machine and the server | it is in transaction mode |
| `connections` | how many more connections the server accepts | they are fewer than `pool_size` |
| `rights` | the role's privileges on the tables | one is missing |
| `invalid_indexes` | indexes whose build failed | there are any |
| `compression` | the compression of large JSON values | it is not lz4 |
| `old_transactions` | transactions that hold vacuum back | one is open for over 5 minutes |
| `wraparound` | the age of the oldest transaction id | it is over 500 million |

A check that does not apply is left out, such as one of the rows of a missing table, or one of
the file of a database in memory. A check that takes too long, or that the database rejects, is
a warning that begins with "not checked".
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Unpack

from sqlalchemy import URL, inspect, select

from ...errors import StoreUnavailableError, WorkflowStoreError
from ..dialects import POSTGRESQL, SQLITE, EngineOptions, ErrorKind, validated_options
from ..errors import to_store_error
from ..models import Base
from ..urls import DatabaseUrl, default_schema, default_url
from . import data, postgresql, postgresql_tables, schema, sqlite
from .findings import Check, Examination, Finding, Verdict, bad, good, warning

__all__ = ["Finding", "Verdict", "examine"]

LIMIT_S = 5.0
"""The time limit of a check."""

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
    """Run all checks of a database, and yield each finding as soon as it is made.

    Nothing is created, migrated or repaired, and no writer is blocked. A check takes some
    seconds at most, however many runs there are; numbers that would take longer to count are
    reported as "over" a limit. The examination uses one connection, and briefly a second one
    behind a pooler.

    For an application that displays the findings or alerts on them:

        async with aclosing(examine(url)) as findings:
            async for check, verdict, found, advice in findings:
                if verdict is not Verdict.GOOD:
                    log.warning("%s: %s. %s", check, found, advice)

    Args:
        url: the database; by default the environment's, as for `open_store`.
        schema: the PostgreSQL schema of the tables, as for `open_store`.
        running_for_s: seconds; a step that is in `running` for longer may be abandoned.
        options: the options with which stores are opened on this database, to be checked too;
            see `EngineOptions`.

    Yields:
        The findings, always in the same order; the module's docstring lists all checks. The
        texts are for people, and change; they contain no value of a run. Names that are not
        the store's own are quoted, with control characters escaped.

    Raises:
        StoreUnavailableError: the database cannot be reached, or the file does not exist.
        ValueError: the URL is not supported or is `memory://`, or an argument is out of range.
    """
    url = url or default_url()
    if str(url).startswith("memory:"):
        raise ValueError(
            "a memory:// store exists only within its own process: there is nothing to check"
        )
    database = DatabaseUrl.parse(url)
    dialect = database.dialect
    schema = (schema or default_schema()) if dialect.supports_schema else None
    if not 0 < running_for_s < timedelta.max.total_seconds():
        raise ValueError(f"running_for_s={running_for_s!r} is out of range")
    options = validated_options(options)
    database.require_existing()
    engine = dialect.create_engine(
        database.url,
        {
            **options,
            "pool_size": 2,
            "busy_timeout_s": min(LIMIT_S, options["busy_timeout_s"]),
            "transaction_pooler": True,  # there may be one
        },
    )
    try:
        async with engine.connect() as connection:
            await connection.execution_options(schema_translate_map={None: schema})
            examination = Examination(connection, dialect, schema, options, running_for_s)
            await _prepare(examination)
            for check in _CHECKS[dialect.name]:
                finding = await _run_check(check, examination)
                if finding is not None:
                    yield finding._replace(check=check.__name__)
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


async def _prepare(examination: Examination) -> None:
    """Measure round trips and the clock, and look up the tables.

    Reading a file that is not a database fails here, and would in every check.
    """
    examination.round_trip_s = float("inf")
    connection = examination.connection
    async with _READ_ONLY[examination.dialect.name](connection, LIMIT_S):
        for _ in range(_ROUND_TRIPS):
            sent_at, began = datetime.now(UTC), time.perf_counter()
            server_time = (await connection.execute(select(examination.dialect.now()))).scalar_one()
            took_s = time.perf_counter() - began
            if took_s < examination.round_trip_s:
                examination.round_trip_s = took_s
                # The best estimate is that the database read its clock halfway.
                examination.clock_ahead_s = (server_time - sent_at).total_seconds() - took_s / 2
        names = await connection.run_sync(
            lambda sync: inspect(sync).get_table_names(schema=examination.schema)
        )
    examination.tables = [t.name for t in Base.metadata.sorted_tables if t.name in names]


async def _run_check(check: Check, examination: Examination) -> Finding | None:
    """Run one check. A failing query becomes a warning; a lost connection is raised."""
    try:
        async with _READ_ONLY[examination.dialect.name](examination.connection, LIMIT_S):
            return await check(examination)
    except TimeoutError:
        advice = "Run doctor again when the database is less busy."
        return warning(f"not checked: the check took longer than {LIMIT_S:g} s", advice)
    except WorkflowStoreError:
        raise
    except Exception as error:
        kind, code, advice = examination.dialect.classify_error(error)
        if kind in {ErrorKind.TRANSIENT, ErrorKind.UNAVAILABLE}:
            raise
        return warning(f"not checked: the database rejected the query ({code})", advice)


async def reachable(examination: Examination) -> Finding:
    version = ".".join(map(str, examination.connection.dialect.server_version_info or ()))
    round_trip_s = examination.round_trip_s
    answer = f"{examination.dialect.name} {version}, a round trip takes {round_trip_s * 1e3:.3g} ms"
    if round_trip_s > SLOW_ROUND_TRIP_S:
        return warning(
            answer,
            "Every write takes at least one round trip: run the application closer to the "
            "database, or check the database's load.",
        )
    return good(answer)


async def clock(examination: Examination) -> Finding:
    ahead_s = examination.clock_ahead_s
    apart_s = max(0.0, abs(ahead_s) - examination.round_trip_s / 2)
    warning_s, bad_s = CLOCKS_APART_S
    if apart_s <= warning_s:
        return good(f"within {max(0.001, abs(ahead_s)):.3f} s of this machine's clock")
    direction = "ahead of" if ahead_s > 0 else "behind"
    return (bad if apart_s > bad_s else warning)(
        f"the database's clock is {abs(ahead_s):,.1f} s {direction} this machine's clock",
        "Synchronize both machines with NTP: leases use the database's clock, and the times of "
        "runs and steps use this machine's clock.",
    )


_COMMON_CHECKS: tuple[Check, ...] = (
    reachable,
    clock,
    schema.revision,
    schema.tables,
    schema.indexes,  # uses the comparison that `tables` makes
    data.oldest_run,
    data.orphans,
    data.damaged_rows,
    data.abandoned_claims,
    data.running_steps,
)
_CHECKS: dict[str, tuple[Check, ...]] = {
    SQLITE.name: (
        *_COMMON_CHECKS,
        sqlite.version,
        sqlite.writable,
        sqlite.file_permissions,
        sqlite.file_system,
        sqlite.journal_mode,
        sqlite.synchronous,
        sqlite.foreign_keys,
        sqlite.integrity,
        sqlite.sizes,
        sqlite.bloat,
        sqlite.wal_size,
    ),
    POSTGRESQL.name: (
        *_COMMON_CHECKS,
        postgresql.version,
        postgresql.encoding,
        postgresql.primary,
        postgresql.durability,
        postgresql.pooler,
        postgresql.connections,
        postgresql_tables.rights,
        postgresql_tables.invalid_indexes,
        postgresql_tables.compression,
        postgresql_tables.sizes,
        postgresql_tables.bloat,
        postgresql.old_transactions,
        postgresql.wraparound,
    ),
}
_READ_ONLY = {SQLITE.name: sqlite.read_only, POSTGRESQL.name: postgresql.read_only}
