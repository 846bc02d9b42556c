"""What can be well or not with a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..health import Check, Subject, Told, bad, duration, good, warning
from . import table_health as table_checks
from .pooler import PoolerMode, detect_pooler

__all__ = ["CHECKS"]

OLDEST_VERSION = (14,)

LONG_TRANSACTION_S = 300.0
AGES_THAT_MATTER = (500_000_000, 1_500_000_000)
"""Age of the oldest transaction id: to look into, and near 2 * 10^9, where writes end."""


async def version(connection: AsyncConnection, subject: Subject) -> Told:
    info = connection.dialect.server_version_info or ()
    found = ".".join(map(str, info))
    if info < OLDEST_VERSION:
        return bad(found, f"Move to PostgreSQL {OLDEST_VERSION[0]} or newer.")
    return good(found)


async def primary(connection: AsyncConnection, subject: Subject) -> Told:
    row = await _row(
        connection,
        "SELECT pg_is_in_recovery() AS standby, "
        "CAST(current_setting('default_transaction_read_only') AS bool) AS read_only",
    )
    if row.standby:
        return bad("a standby, which takes no writes", "Name the primary in the URL.")
    if row.read_only:
        return bad(
            "transactions are read-only by default, so that a store cannot write",
            "Name the primary in the URL, or reset default_transaction_read_only for this "
            "database and this role (ALTER DATABASE … RESET, ALTER ROLE … RESET).",
        )
    return good("takes writes")


async def durability(connection: AsyncConnection, subject: Subject) -> Told:
    row = await _row(
        connection,
        "SELECT current_setting('fsync') AS fsync, "
        "current_setting('full_page_writes') AS full_page_writes, "
        "current_setting('synchronous_commit') AS synchronous_commit",
    )
    found = ", ".join(f"{name}={value}" for name, value in row._asdict().items())
    if row.fsync == "off":
        return bad(
            f"{found}: loss of power may damage the whole database",
            "Set fsync=on in the server's configuration and reload it.",
        )
    if row.full_page_writes == "off":
        return warning(
            f"{found}: loss of power may damage pages that were being written",
            "Set full_page_writes=on, but where the file system never writes half a page.",
        )
    if row.synchronous_commit == "off":
        return warning(
            f"{found}: loss of power may lose the last commits",
            "Set synchronous_commit=on for the database or the role of the store.",
        )
    return good(found)


async def pooler(connection: AsyncConnection, subject: Subject) -> Told:
    between = await detect_pooler(connection)
    if between is PoolerMode.NOTHING:
        return good("none: connections go to the server itself")
    if between is PoolerMode.SESSION_POOLER:
        return good("a pooler in session mode")
    found = "a pooler in transaction mode"
    if subject.options["transaction_pooler"]:
        return good(f"{found}, and transaction_pooler=True")
    return warning(
        found,
        "Open every store with transaction_pooler=True, and migrate on a connection to the "
        "server itself, whose lock on migrations such a pooler does not keep.",
    )


async def old_transactions(connection: AsyncConnection, subject: Subject) -> Told:
    row = await _row(
        connection,
        """SELECT count(*) AS count, max(age_s) AS oldest_s, min(who) AS who FROM (
            SELECT extract(epoch FROM clock_timestamp() - xact_start) AS age_s,
                'SELECT pg_terminate_backend(' || pid || ');' AS who
            FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend'
            UNION ALL
            SELECT extract(epoch FROM clock_timestamp() - prepared),
                'ROLLBACK PREPARED ' || quote_literal(gid) || ';'
            FROM pg_prepared_xacts WHERE database = current_database()
        ) AS open WHERE age_s > :longest_s""",
        longest_s=LONG_TRANSACTION_S,
    )
    sees_all = await connection.scalar(
        text("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')")
    )
    seen = "" if sees_all else ", of this role (others need pg_read_all_stats to be seen)"
    if row.count:
        return warning(
            f"{row.count:,} open for over {duration(LONG_TRANSACTION_S)}, the oldest for "
            f"{duration(row.oldest_s)}{seen}: vacuum can remove nothing that is newer",
            f"Let what opened them end them, or end them, such as: {row.who}",
        )
    return good(f"none is open for over {duration(LONG_TRANSACTION_S)}{seen}")


async def connections(connection: AsyncConnection, subject: Subject) -> Told:
    # Neither the limit of a role nor that of a database holds for a superuser. Of the sessions
    # of others, most roles see the database alone, and few processes of the server's own have one.
    row = await _row(
        connection,
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
    pool_size = subject.options["pool_size"]
    found = f"{max(0, row.free):,} free of {row.most:,}; a store takes up to {pool_size:,}"
    if row.free < pool_size:
        return warning(
            found,
            "Lower pool_size, end connections that are not needed, use a pooler, or raise the "
            "limit (max_connections, or that of the role or of the database).",
        )
    return good(found)


async def wraparound(connection: AsyncConnection, subject: Subject) -> Told:
    age = await connection.scalar(
        text(
            "SELECT greatest(age(datfrozenxid), mxid_age(datminmxid)) FROM pg_database "
            "WHERE datname = current_database()"
        )
    )
    found = f"the oldest transaction id is {age:,} transactions old"
    look_into, near_the_end = AGES_THAT_MATTER
    if age <= look_into:
        return good(found)
    return (bad if age > near_the_end else warning)(
        f"{found}; at 2,000,000,000 the server stops taking writes",
        "Run: VACUUM (FREEZE); in this database, as its owner, and look why autovacuum does not: "
        "old_transactions, replication slots, or its settings.",
    )


CHECKS: Mapping[str, Check] = {
    "version": version,
    "primary": primary,
    "durability": durability,
    "pooler": pooler,
    "connections": connections,
    **table_checks.CHECKS,
    "old_transactions": old_transactions,
    "wraparound": wraparound,
}


async def _row(connection: AsyncConnection, sql: str, **parameters: Any) -> Any:
    return (await connection.execute(text(sql), parameters)).one()
