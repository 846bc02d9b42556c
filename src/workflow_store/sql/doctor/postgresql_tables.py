"""Checks of the tables on PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from ...formatting import coarse_duration, size
from ..models import VERSION_TABLE
from .findings import Examination, Finding, bad, good, warning

__all__ = ["bloat", "compression", "invalid_indexes", "partitioned_tables", "rights", "sizes"]

DEAD_ROWS_THAT_MATTER = 10_000

# The store's tables, by the catalog; without a schema, those that the search path finds.
# Casting a name to regclass would fail without the right to use the schema.
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


def partitioned_tables(connection: Connection, schema: str | None) -> set[str]:
    """Return the names of the partitioned tables in a schema, by default the current one."""
    names = text(
        "SELECT relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace n "
        "ON n.oid = relnamespace WHERE relkind = 'p' "
        "AND nspname = coalesce(CAST(:schema AS text), current_schema())"
    )
    return set(connection.scalars(names, {"schema": schema}))


async def rights(examination: Examination) -> Finding | None:
    rows = await _rows(
        examination,
        """
        SELECT full_name, quote_ident(schema) AS schema, quote_ident(current_user) AS role,
            has_schema_privilege(schema_oid, 'USAGE') AS enters, ARRAY(
                SELECT kind FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind
                WHERE NOT has_table_privilege(oid, kind)
                    AND (kind = 'SELECT' OR name <> CAST(:version_table AS text))
            ) AS missing
        FROM ours ORDER BY name""",
        names=[*examination.tables, VERSION_TABLE],
        version_table=VERSION_TABLE,
    )
    # Dictionaries, as sets that keep their order.
    schemas = {f"schema {row.schema}": None for row in rows if not row.enters}
    tables = [f"{row.full_name} ({', '.join(row.missing)})" for row in rows if row.missing]
    grants = {
        f"GRANT USAGE ON SCHEMA {row.schema} TO {row.role};": None for row in rows if not row.enters
    } | {
        f"GRANT {', '.join(row.missing)} ON {row.full_name} TO {row.role};": None
        for row in rows
        if row.missing
    }
    if grants:
        return bad(
            f"role {rows[0].role} lacks privileges on {', '.join([*schemas, *tables])}",
            f"As the owner, run: {' '.join(grants)}",
        )
    return good(f"role {rows[0].role} can read and write all tables") if rows else None


async def invalid_indexes(examination: Examination) -> Finding | None:
    if not examination.tables:
        return None
    # An index that is being built concurrently is invalid until the build ends:
    # https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    # Only members of pg_read_all_stats see which index another role builds.
    rows = await _rows(
        examination,
        """
        SELECT quote_ident(ours.schema) || '.' || quote_ident(c.relname) AS full_name, EXISTS (
                SELECT FROM builds WHERE index_relid IS NULL) AS some_hidden
        FROM ours JOIN parts USING (oid) JOIN pg_index i ON i.indrelid = part
            JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT (i.indisvalid AND i.indisready)
            AND NOT EXISTS (SELECT FROM builds WHERE index_relid = i.indexrelid)
        ORDER BY 1""",
    )
    if not rows:
        return good("all valid")
    names = ", ".join(row.full_name for row in rows)
    statements = " ".join(f"REINDEX INDEX CONCURRENTLY {row.full_name};" for row in rows)
    if rows[0].some_hidden:
        return warning(
            f"invalid or still being built: {names}; another role is building an index, but "
            "pg_read_all_stats is required to see which one",
            "Run doctor again once the build has finished. For any index still reported, run: "
            f"{statements}",
        )
    return bad(f"unused, but still slowing down writes: {names}", f"Run: {statements}")


async def compression(examination: Examination) -> Finding | None:
    if not examination.tables:
        return None
    rows = await _rows(
        examination,
        """
        SELECT ours.full_name, quote_ident(a.attname) AS name, (
                SELECT 'lz4' = ANY (enumvals) FROM pg_settings
                WHERE pg_settings.name = 'default_toast_compression') AS has_lz4
        FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid
        WHERE a.atttypid = 'json'::regtype AND NOT a.attisdropped AND a.attcompression <> 'l'
            AND (a.attcompression <> '' OR current_setting('default_toast_compression') <> 'lz4')
        ORDER BY 1, a.attnum""",
    )
    if not rows:
        return good("large JSON values are compressed with lz4")
    if not rows[0].has_lz4:
        return warning(
            "large JSON values are compressed with pglz, because the server was built without lz4",
            "Use a PostgreSQL build with lz4 support (most have it): lz4 compresses large values "
            "faster.",
        )
    statements = " ".join(
        f"ALTER TABLE {row.full_name} ALTER COLUMN {row.name} SET COMPRESSION lz4;" for row in rows
    )
    return warning(
        "large JSON values are compressed with pglz, which is slower than lz4",
        f"If the tables are already at the newest revision, run: {statements}",
    )


async def sizes(examination: Examination) -> Finding | None:
    rows = await _rows(
        examination,
        "SELECT name, CAST(sum(pg_total_relation_size(part)) AS bigint) AS total, "
        "CAST(sum(pg_indexes_size(part)) AS bigint) AS indexes FROM ours JOIN parts USING (oid) "
        "GROUP BY name ORDER BY 2 DESC",
    )
    sizes = [f"{row.name} {size(row.total)} (indexes {size(row.indexes)})" for row in rows]
    return good(", ".join(sizes)) if sizes else None


async def bloat(examination: Examination) -> Finding | None:
    rows = await _rows(
        examination,
        """
        SELECT ours.name, full_name, CAST(sum(n_live_tup) AS bigint) AS live,
            CAST(sum(n_dead_tup) AS bigint) AS dead, extract(
            epoch FROM clock_timestamp() - max(greatest(last_vacuum, last_autovacuum))) AS ago_s
        FROM ours JOIN parts USING (oid) JOIN pg_stat_user_tables s ON s.relid = part
        GROUP BY ours.name, full_name ORDER BY dead DESC""",
    )
    if not rows:
        return None
    counts = "; ".join(
        f"{row.name} {row.dead:,} dead and {row.live:,} live rows, "
        + ("never vacuumed" if row.ago_s is None else f"vacuumed {coarse_duration(row.ago_s)} ago")
        for row in rows
    )
    bloated = ", ".join(
        row.full_name
        for row in rows
        if row.dead > DEAD_ROWS_THAT_MATTER and row.dead > 0.4 * row.live
    )
    if bloated:
        return warning(
            counts,
            f"Run: VACUUM (ANALYZE) {bloated}. Then find out why autovacuum is falling behind: see "
            "the old_transactions check, and review the autovacuum settings.",
        )
    return good(counts)


async def _rows(examination: Examination, sql: str, **parameters: Any) -> list[Any]:
    """Run a query about the store's tables, which are `ours` in it."""
    values = {"names": examination.tables, "schema": examination.schema, **parameters}
    return list((await examination.connection.execute(text(_OURS + sql), values)).all())
