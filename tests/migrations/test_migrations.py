"""What the migrations create, on upgrade and downgrade."""

from __future__ import annotations

import ast
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    make_url,
    text,
)

from support import ROOT
from support.databases import Target
from support.engines import engine_of_a_host
from support.next_version import FIRST, NEXT
from support.schema import (
    ODD_SCHEMA,
    OURS,
    add_rows,
    another_migration,
    contents,
    describe,
    execute,
    file_of,
    tables,
)
from workflow_store import (
    SchemaMismatchError,
    SqlWorkflowStore,
    StoreUnavailableError,
    WorkflowStoreError,
)
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION, VERSION_TABLE, Base

REVISIONS = sorted((ROOT / "migrations" / "versions").glob("*.py"))
NEXT_REVISIONS = sorted((ROOT / "tests" / "migrations" / "revisions").glob("*.py"))


# -- the revisions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))


@pytest.mark.parametrize("file", [*REVISIONS, *NEXT_REVISIONS], ids=lambda file: file.stem)
def test_a_revision_goes_up_and_down_and_needs_nothing_of_the_package(file: Path) -> None:
    """A revision works forever, whatever happens to the package's code, and has a downgrade."""
    tree = ast.parse(file.read_text("utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            imported.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
    assert imported - sys.stdlib_module_names <= {"alembic", "sqlalchemy"}

    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name in ("upgrade", "downgrade"):
        calls = [node for node in ast.walk(functions[name]) if isinstance(node, ast.Call)]
        assert calls, f"{name} does nothing"


def test_the_models_need_the_single_newest_revision(script: ScriptDirectory) -> None:
    """A new revision without the models fails here, and not when a store is opened."""
    assert script.get_heads() == [REVISION]
    assert len(list(script.walk_revisions())) == len(REVISIONS)


def test_ids_and_label_belong_to_us_alone(script: ScriptDirectory) -> None:
    """A host application has both beside its own revisions."""
    revisions = list(script.walk_revisions())
    assert all(revision.revision.startswith("ws_") for revision in revisions)
    assert [revision.branch_labels for revision in revisions] == [{"workflow_store"}] * len(
        revisions
    )


# -- models and migrations -------------------------------------------------------------


def differences(connection: Connection, metadata: MetaData, schema: str | None = None) -> list[Any]:
    """Return what autogenerate would write to bring a database to these models."""
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "version_table_schema": schema,
            "include_schemas": schema is not None,
        },
    )
    return list(compare_metadata(context, metadata))


def with_a_column(metadata: MetaData) -> None:
    metadata.tables["runs"].append_column(Column("extra", Text))


def with_an_index(metadata: MetaData) -> None:
    Index("ix_runs_agent_id", metadata.tables["runs"].c.agent_id)


def with_a_table(metadata: MetaData) -> None:
    Table("extra", metadata, Column("id", Integer, primary_key=True))


def with_another_type(metadata: MetaData) -> None:
    metadata.tables["runs"].c.created_at.type = Integer()


def with_a_required_column(metadata: MetaData) -> None:
    metadata.tables["steps"].c.result.nullable = False


CHANGES: list[tuple[Callable[[MetaData], None], str]] = [
    (with_a_column, "add_column"),
    (with_an_index, "add_index"),
    (with_a_table, "add_table"),
    (with_another_type, "modify_type"),
    (with_a_required_column, "modify_nullable"),
]


def copy_of_the_models() -> MetaData:
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    for ours in Base.metadata.sorted_tables:
        ours.to_metadata(metadata)
    return metadata


async def test_autogenerate_finds_nothing_between_the_models_and_a_migrated_database(
    empty_url: str,
) -> None:
    """Changing the models without a revision fails here."""
    await migrate.upgrade(empty_url)
    async with engine_of_a_host(empty_url) as engine, engine.connect() as connection:
        assert await connection.run_sync(differences, Base.metadata) == []
        for change, expected in CHANGES:
            models = copy_of_the_models()
            change(models)
            found = repr(await connection.run_sync(differences, models))
            assert expected in found, f"{change.__name__} is not seen"


async def test_autogenerate_finds_nothing_in_a_schema_of_our_own(empty_postgres_url: str) -> None:
    """The tables are the same wherever they lie."""
    await migrate.upgrade(empty_postgres_url, schema=ODD_SCHEMA)
    placed = migrate.metadata(ODD_SCHEMA)
    async with engine_of_a_host(empty_postgres_url) as engine, engine.connect() as connection:
        assert await connection.run_sync(differences, placed, ODD_SCHEMA) == []


async def test_the_migrations_create_exactly_the_tables_of_the_models(
    empty_url: str,
) -> None:
    """So is all that autogenerate does not compare: collations, names, identities."""

    async def made_by(metadata: MetaData) -> dict[str, list[str]]:
        async with engine_of_a_host(empty_url) as engine, engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            made = await connection.run_sync(describe)
            await connection.run_sync(metadata.drop_all)
            return made

    by_models = await made_by(Base.metadata)
    changed = copy_of_the_models()
    for constraint in changed.tables["steps"].constraints:
        constraint.name = f"{constraint.name}_renamed"
    assert await made_by(changed) != by_models
    if file_of(empty_url) is None:  # SQLite has but one collation here
        changed = copy_of_the_models()
        changed.tables["runs"].c.run_task_id.type = Text()
        assert await made_by(changed) != by_models

    await migrate.upgrade(empty_url)
    by_migrations = await contents(empty_url)
    assert {k: v for k, v in by_migrations.items() if VERSION_TABLE not in k} == by_models


# -- up and down -----------------------------------------------------------------------


async def test_a_database_goes_up_and_down_with_rows_and_up_again(
    target: Target, empty_url: str
) -> None:
    """Each function works inside a running event loop, and may be repeated."""
    if empty_url.startswith("sqlite"):
        Path(str(make_url(empty_url).database)).touch()  # a file that is missing is an error
    assert await migrate.current(target) is None
    with pytest.raises(SchemaMismatchError):
        await migrate.check(target)
    assert await tables(empty_url) == set(), "asking made a table"

    for _ in range(2):
        for _ in range(2):
            await migrate.upgrade(target)
            await migrate.check(target)
            assert await migrate.current(target) == REVISION
            assert await tables(empty_url) == OURS
        await add_rows(empty_url)
        kept = await contents(empty_url)
        await migrate.upgrade(target)
        assert await contents(empty_url) == kept
        for _ in range(2):
            await migrate.downgrade(target, "base")
            assert await migrate.current(target) is None
            assert await tables(empty_url) == {VERSION_TABLE}


@pytest.mark.usefixtures("next_version")
async def test_every_revision_goes_down_with_rows_and_up_again(empty_url: str) -> None:
    """Each step works on its own, keeps the rows, and ends at the same tables."""
    await migrate.upgrade(empty_url)
    head = await contents(empty_url)
    await migrate.downgrade(empty_url, FIRST)
    first = await contents(empty_url)
    await migrate.upgrade(empty_url)
    await add_rows(empty_url)
    with_rows = await contents(empty_url)
    for _ in range(2):
        await migrate.downgrade(empty_url, FIRST)
        assert await migrate.current(empty_url) == FIRST
        with pytest.raises(SchemaMismatchError, match="alembic upgrade workflow_store@head"):
            await migrate.check(empty_url)
        await migrate.upgrade(empty_url, NEXT)
        assert await migrate.current(empty_url) == NEXT
        await migrate.check(empty_url)
    filled = await contents(empty_url)
    assert [name for name in filled if filled[name] != with_rows[name]] == [
        name for name in filled if name.endswith(".runs")
    ], "the revision fills its column"
    for older in (FIRST, None):
        await migrate.downgrade(empty_url, older or "base")
        assert await migrate.current(empty_url) == older
    for newer, expected in ((FIRST, first), (NEXT, head)):
        await migrate.upgrade(empty_url, newer)
        assert await contents(empty_url) == expected


@pytest.mark.usefixtures("next_version")
@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
async def test_the_offline_sql_makes_the_same_database(empty_url: str, schema: str | None) -> None:
    """A database team applies by hand what an upgrade does; SQLite has no schemas."""
    sql = await migrate.offline_sql(empty_url, schema=schema)
    await execute(empty_url, sql)
    await migrate.check(empty_url, schema=schema)
    offline = await contents(empty_url)
    await migrate.downgrade(empty_url, "base", schema=schema)
    await migrate.upgrade(empty_url, schema=schema)
    assert await contents(empty_url) == offline
    await add_rows(empty_url, schema=schema)


async def test_offline_sql_that_fails_leaves_no_half(empty_url: str) -> None:
    """The SQL holds its own transaction, whatever it is applied with."""
    await execute(empty_url, "CREATE TABLE steps (id INTEGER PRIMARY KEY)")
    before = await contents(empty_url)
    with pytest.raises((sqlite3.OperationalError, asyncpg.DuplicateTableError)):
        await execute(empty_url, await migrate.offline_sql(empty_url))
    assert await contents(empty_url) == before


@pytest.mark.usefixtures("next_version")
async def test_a_callers_engine_keeps_its_connection_and_its_settings(empty_url: str) -> None:
    """The engine is neither disposed nor configured, whether the migration works or fails."""
    settings: dict[str, int | str]
    if file_of(empty_url) is not None:
        settings = {"PRAGMA busy_timeout": 1234, "PRAGMA foreign_keys": 0}
    else:
        settings = {"SHOW lock_timeout": "1234ms", "SHOW statement_timeout": "54321ms"}
    connections = []

    async with engine_of_a_host(empty_url, pool_size=1, max_overflow=0) as engine:

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, _: object) -> None:
            connections.append(connection)
            cursor = connection.cursor()
            for name, value in settings.items():
                cursor.execute(f"{name.replace('SHOW', 'SET')} = '{value}'")
            cursor.close()
            connection.commit()

        async def as_it_was() -> bool:
            async with engine.connect() as connection:
                now = {name: await connection.scalar(text(name)) for name in settings}
            return now == settings and len(connections) == 1

        assert await as_it_was()
        await migrate.upgrade(engine)
        assert await as_it_was()
        await migrate.check(engine)
        assert await migrate.current(engine) == NEXT
        async with SqlWorkflowStore(engine) as store:
            assert await store.get_run("r") is None
        await migrate.downgrade(engine, "base")
        assert await as_it_was()
        await execute(empty_url, "CREATE TABLE steps (id INTEGER PRIMARY KEY)")
        with pytest.raises(WorkflowStoreError):
            await migrate.upgrade(engine)
        assert await as_it_was()
        async with another_migration(empty_url):
            with pytest.raises(StoreUnavailableError):
                await migrate.upgrade(engine, lock_timeout_s=0.1)
        assert await as_it_was()


@pytest.mark.usefixtures("next_version")
async def test_a_callers_sqlite_engine_that_begins_its_transactions_itself_is_migrated(
    sqlite_url: str,
) -> None:
    """An engine set up as SQLAlchemy's documentation advises is taken as it is."""
    async with engine_of_a_host(sqlite_url) as engine:

        @event.listens_for(engine.sync_engine, "connect")
        def leave_transactions_to_us(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        await execute(sqlite_url, "CREATE TABLE steps (id INTEGER PRIMARY KEY)")
        before = await contents(sqlite_url)
        with pytest.raises(WorkflowStoreError):
            await migrate.upgrade(engine)
        assert await contents(sqlite_url) == before
        await execute(sqlite_url, "DROP TABLE steps")
        await migrate.upgrade(engine)
        await migrate.check(engine)
