"""Checks of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import StoreUnavailableError
from ...formatting import duration
from ..dialects import POSTGRESQL, EngineOptions
from ..dialects.postgresql.pooler import PoolerMode, detect_pooler
from .findings import Examination, Finding, bad, good, warning

__all__ = ["connections", "durability", "old_transactions", "pooler", "primary", "read_only",
           "version", "wraparound"]  # fmt: skip

OLDEST_VERSION = (14,)

LONG_TRANSACTION_S = 300.0

AGES_THAT_MATTER = (500_000_000, 1_500_000_000)
"""Ages of the oldest transaction id, for a warning and for a bad finding.

Writes stop near 2 * 10^9:
https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""


@asynccontextmanager
async def read_only(connection: AsyncConnection, timeout_s: float) -> AsyncIterator[None]:
    """Run a block in a read-only transaction.

    Raises:
        TimeoutError: a statement took longer than the timeout.
        StoreUnavailableError: the server did not respond at all.
    """
    await connection.execution_options(postgresql_readonly=True)
    options: EngineOptions = {"statement_timeout_s": timeout_s}
    try:
        async with POSTGRESQL.transaction(connection, options):
            yield
    except exc.DBAPIError as error:
        if POSTGRESQL.classify_error(error).name == "SQLSTATE 57014":  # query_canceled
            raise TimeoutError from error
        raise
    except TimeoutError as error:
        raise StoreUnavailableError(
            f"The server did not respond for {timeout_s:g} seconds: check its load and the network."
        ) from error


async def version(examination: Examination) -> Finding:
    current = examination.connection.dialect.server_version_info or ()
    if current < OLDEST_VERSION:
        advice = f"Upgrade to PostgreSQL {OLDEST_VERSION[0]} or newer."
        return bad(".".join(map(str, current)), advice)
    return good(".".join(map(str, current)))


async def primary(examination: Examination) -> Finding:
    row = await _row(
        examination,
        "SELECT pg_is_in_recovery() AS standby, "
        "CAST(current_setting('default_transaction_read_only') AS bool) AS read_only",
    )
    if row.standby:
        return bad("a standby, which does not accept writes", "Point the URL at the primary.")
    if row.read_only:
        return bad(
            "transactions are read-only by default, so a store cannot write",
            "Point the URL at the primary, or reset default_transaction_read_only for this "
            "database and role (ALTER DATABASE … RESET, ALTER ROLE … RESET).",
        )
    return good("accepts writes")


async def durability(examination: Examination) -> Finding:
    # https://www.postgresql.org/docs/current/runtime-config-wal.html
    row = await _row(
        examination,
        "SELECT current_setting('fsync') AS fsync, "
        "current_setting('full_page_writes') AS full_page_writes, "
        "current_setting('synchronous_commit') AS synchronous_commit",
    )
    settings = ", ".join(f"{name}={value}" for name, value in row._asdict().items())
    if row.fsync == "off":
        return bad(
            f"{settings}: a power loss may corrupt the whole database",
            "Set fsync=on in the server's configuration and reload it.",
        )
    if row.full_page_writes == "off":
        return warning(
            f"{settings}: a power loss may corrupt pages that were being written",
            "Set full_page_writes=on, unless the file system never writes partial pages.",
        )
    if row.synchronous_commit == "off":
        return warning(
            f"{settings}: the most recent commits may be lost in a power failure",
            "Set synchronous_commit=on for the database or the role of the store.",
        )
    return good(settings)


async def pooler(examination: Examination) -> Finding:
    mode = await detect_pooler(examination.connection)
    if mode is PoolerMode.NONE:
        return good("none: connections go directly to the server")
    if mode is PoolerMode.SESSION:
        return good("a pooler in session mode")
    if examination.options["transaction_pooler"]:
        return good("a pooler in transaction mode, with transaction_pooler=True")
    return warning(
        "a pooler in transaction mode",
        "Open every store with transaction_pooler=True, and migrate over a direct connection: "
        "a pooler in this mode cannot hold the migration lock.",
    )


async def connections(examination: Examination) -> Finding:
    # Superusers are exempt from the limits of a role and of a database. Of other sessions, most
    # roles see only the database, which few of the server's own processes have.
    # https://www.postgresql.org/docs/current/runtime-config-connection.html
    row = await _row(
        examination,
        """SELECT least(
            most - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL
                AND coalesce(backend_type, 'client backend') = 'client backend'),
            CASE WHEN of_role >= 0 AND NOT rolsuper THEN of_role - (
                SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) END,
            CASE WHEN of_database >= 0 AND NOT rolsuper THEN of_database - (
                SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) END
        ) AS free, most FROM (
            SELECT CAST(current_setting('max_connections') AS int)
                - CAST(current_setting('superuser_reserved_connections') AS int)
                - CAST(coalesce(current_setting('reserved_connections', true), '0') AS int)
                AS most, rolconnlimit AS of_role, datconnlimit AS of_database, rolsuper
            FROM pg_roles, pg_database
            WHERE rolname = current_user AND datname = current_database()
        ) AS limits""",
    )
    pool_size = examination.options["pool_size"]
    free = f"{max(0, row.free):,} of {row.most:,} free; a store opens up to {pool_size:,}"
    if row.free < pool_size:
        return warning(
            free,
            "Lower pool_size, close unused connections, use a pooler, or raise the connection "
            "limit (max_connections, or the role's or database's CONNECTION LIMIT).",
        )
    return good(free)


async def old_transactions(examination: Examination) -> Finding:
    row = await _row(
        examination,
        """SELECT count(*) AS count, max(age_s) AS oldest_s, min(remedy) AS remedy,
            pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all
        FROM (
            SELECT extract(epoch FROM clock_timestamp() - xact_start) AS age_s,
                'SELECT pg_terminate_backend(' || pid || ');' AS remedy
            FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend'
            UNION ALL
            SELECT extract(epoch FROM clock_timestamp() - prepared),
                'ROLLBACK PREPARED ' || quote_literal(gid) || ';'
            FROM pg_prepared_xacts WHERE database = current_database()
        ) AS open WHERE age_s > :longest_s""",
        longest_s=LONG_TRANSACTION_S,
    )
    limit = duration(LONG_TRANSACTION_S, brief=True)
    # https://www.postgresql.org/docs/current/predefined-roles.html
    scope = "" if row.sees_all else " (this role's only: seeing others requires pg_read_all_stats)"
    if row.count:
        return warning(
            f"{row.count:,} open for over {limit}, the oldest for "
            f"{duration(row.oldest_s)}{scope}: vacuum cannot remove rows deleted since it began",
            "Commit or roll back these transactions in their clients, or terminate their "
            f"sessions, for example: {row.remedy}",
        )
    return good(f"none open for over {limit}{scope}")


async def wraparound(examination: Examination) -> Finding:
    row = await _row(
        examination,
        "SELECT greatest(age(datfrozenxid), mxid_age(datminmxid)) AS age FROM pg_database "
        "WHERE datname = current_database()",
    )
    age = f"the oldest transaction ID is {row.age:,} transactions old"
    warning_age, bad_age = AGES_THAT_MATTER
    if row.age <= warning_age:
        return good(age)
    return (bad if row.age > bad_age else warning)(
        f"{age}; at 2,000,000,000 the server stops accepting writes",
        "As the database owner, run: VACUUM (FREEZE). Then find out why autovacuum is falling "
        "behind: see the old_transactions check, and review replication slots and the autovacuum "
        "settings.",
    )


async def _row(examination: Examination, sql: str, **parameters: Any) -> Any:
    return (await examination.connection.execute(text(sql), parameters)).one()
