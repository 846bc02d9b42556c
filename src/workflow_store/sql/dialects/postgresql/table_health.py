"""What can be well or not with our tables on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..health import Check, Subject, Told, bad, duration, good, size, warning

__all__ = ["CHECKS"]

DEAD_ROWS_THAT_MATTER = 10_000

# The tables by the catalog, as the search path finds them where no schema is asked for. A cast
# of a name to regclass would fail without a right on the schema.
_OURS = """
    WITH ours AS (
        SELECT c.oid, c.relname AS name, n.oid AS schema_oid, n.nspname AS schema,
            quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS full_name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = ANY (CAST(:names AS text[])) AND c.relkind IN ('r', 'p') AND CASE
            WHEN CAST(:schema AS text) IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
            ELSE n.nspname = CAST(:schema AS text) END
    ), parts AS (
        SELECT oid, oid AS part FROM ours
        UNION SELECT oid, relid FROM ours, pg_partition_tree(oid)
    ), builds AS (
        SELECT index_relid FROM pg_stat_progress_create_index WHERE datname = current_database()
    )
"""


async def rights(connection: AsyncConnection, subject: Subject) -> Told | None:
    rows = await _rows(
        connection,
        """
        SELECT full_name, quote_ident(schema) AS schema, quote_ident(current_user) AS role,
            has_schema_privilege(schema_oid, 'USAGE') AS enters, ARRAY(
                SELECT kind FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind
                WHERE NOT has_table_privilege(oid, kind)
                    AND (kind = 'SELECT' OR name <> CAST(:version_table AS text))
            ) AS missing
        FROM ours ORDER BY name""",
        subject,
        names=[*_names(subject), subject.version_table],
        version_table=subject.version_table,
    )
    grants = {
        f"GRANT USAGE ON SCHEMA {row.schema} TO {row.role};": None for row in rows if not row.enters
    } | {
        f"GRANT {', '.join(row.missing)} ON {row.full_name} TO {row.role};": None
        for row in rows
        if row.missing
    }
    if grants:
        without = [f"{row.full_name} ({', '.join(row.missing)})" for row in rows if row.missing]
        closed = {f"schema {row.schema}": None for row in rows if not row.enters}
        return bad(
            f"role {rows[0].role} lacks rights on {', '.join([*closed, *without])}",
            f"As the owner, run: {' '.join(grants)}",
        )
    return good(f"role {rows[0].role} may read and write all tables") if rows else None


async def invalid_indexes(connection: AsyncConnection, subject: Subject) -> Told | None:
    if not subject.tables:
        return None
    # One that is being built beside the writers is not valid either, until it is whole. Which
    # one another role builds is shown to few.
    rows = await _rows(
        connection,
        """
        SELECT quote_ident(ours.schema) || '.' || quote_ident(c.relname) AS full_name, EXISTS (
                SELECT FROM builds WHERE index_relid IS NULL) AS some_hidden
        FROM ours JOIN parts USING (oid) JOIN pg_index i ON i.indrelid = part
            JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT (i.indisvalid AND i.indisready)
            AND NOT EXISTS (SELECT FROM builds WHERE index_relid = i.indexrelid)
        ORDER BY 1""",
        subject,
    )
    if not rows:
        return good("all are valid")
    names = ", ".join(row.full_name for row in rows)
    statements = " ".join(f"REINDEX INDEX CONCURRENTLY {row.full_name};" for row in rows)
    if rows[0].some_hidden:
        return warning(
            f"not used yet or at all: {names}; another role is building an index, and to see "
            "which needs pg_read_all_stats",
            f"Look again when it is built; those that are still told need: {statements}",
        )
    return bad(f"not used, and slow writes down: {names}", f"Run: {statements}")


async def compression(connection: AsyncConnection, subject: Subject) -> Told | None:
    if not subject.tables:
        return None
    rows = await _rows(
        connection,
        """
        SELECT ours.full_name, quote_ident(a.attname) AS name
        FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid
        WHERE a.atttypid = 'json'::regtype AND NOT a.attisdropped AND a.attcompression <> 'l'
            AND (a.attcompression <> '' OR current_setting('default_toast_compression') <> 'lz4')
        ORDER BY 1, a.attnum""",
        subject,
    )
    if not rows:
        return good("large JSON values by lz4")
    can = await connection.scalar(
        text("SELECT 'lz4' = ANY (enumvals) FROM pg_settings "
             "WHERE name = 'default_toast_compression'")
    )  # fmt: skip
    if not can:
        return warning(
            "large JSON values by pglz, since the server was built without lz4",
            "Use a server that was built with lz4, as most are: it compresses large values faster.",
        )
    changes = [
        f"ALTER TABLE {row.full_name} ALTER COLUMN {row.name} SET COMPRESSION lz4;" for row in rows
    ]
    return warning(
        "large JSON values by pglz, which is slower than lz4",
        f"Where the revision is the newest already, run: {' '.join(changes)}",
    )


async def sizes(connection: AsyncConnection, subject: Subject) -> Told | None:
    rows = await _rows(
        connection,
        "SELECT name, CAST(sum(pg_total_relation_size(part)) AS bigint) AS total, "
        "CAST(sum(pg_indexes_size(part)) AS bigint) AS indexes FROM ours JOIN parts USING (oid) "
        "GROUP BY name ORDER BY 2 DESC",
        subject,
    )
    parts = [f"{row.name} {size(row.total)} (indexes {size(row.indexes)})" for row in rows]
    return good(", ".join(parts)) if parts else None


async def bloat(connection: AsyncConnection, subject: Subject) -> Told | None:
    rows = await _rows(
        connection,
        """
        SELECT ours.name, full_name, CAST(sum(n_live_tup) AS bigint) AS live,
            CAST(sum(n_dead_tup) AS bigint) AS dead, extract(
            epoch FROM clock_timestamp() - max(greatest(last_vacuum, last_autovacuum))) AS ago_s
        FROM ours JOIN parts USING (oid) JOIN pg_stat_user_tables s ON s.relid = part
        GROUP BY ours.name, full_name ORDER BY dead DESC""",
        subject,
    )
    if not rows:
        return None
    found = "; ".join(
        f"{row.name} {row.dead:,} dead rows beside {row.live:,}, "
        + ("never vacuumed" if row.ago_s is None else f"vacuumed {duration(row.ago_s)} ago")
        for row in rows
    )
    swollen = [r for r in rows if r.dead > DEAD_ROWS_THAT_MATTER and r.dead > 0.4 * r.live]
    if swollen:
        names = ", ".join(row.full_name for row in swollen)
        return warning(
            found,
            f"Run: VACUUM (ANALYZE) {names}; and look why autovacuum does not: old_transactions, "
            "or its settings.",
        )
    return good(found)


CHECKS: Mapping[str, Check] = {
    "rights": rights,
    "invalid_indexes": invalid_indexes,
    "compression": compression,
    "sizes": sizes,
    "bloat": bloat,
}


def _names(subject: Subject) -> list[str]:
    return [table.name for table in subject.tables]


async def _rows(
    connection: AsyncConnection, sql: str, subject: Subject, **parameters: Any
) -> list[Any]:
    """Give the rows of a query about our tables, which are `ours` in it."""
    given = {"names": _names(subject), "schema": subject.schema, **parameters}
    return list((await connection.execute(text(_OURS + sql), given)).all())
