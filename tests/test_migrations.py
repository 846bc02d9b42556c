"""The migrations: what they make, what they refuse, and how they keep out of each other's way."""

from __future__ import annotations

import ast
import asyncio
import multiprocessing
import re
import shlex
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from threading import Barrier
from typing import Any, TypeAlias

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
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy import table as table_clause
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from conftest import PATIENCE_S, drop_database, new_database, on_server
from workflow_store import (
    InvalidStateError,
    SchemaMismatchError,
    SqlWorkflowStore,
    StoreUnavailableError,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStoreError,
)
from workflow_store.sql import migrate
from workflow_store.sql.dialects import options
from workflow_store.sql.models import REVISION, VERSION_TABLE, Base

ROOT = Path(__file__).parents[1]
REVISIONS = sorted((ROOT / "migrations" / "versions").glob("*.py"))
OURS = {*Base.metadata.tables, VERSION_TABLE}
ODD_SCHEMA = "We ird 100%"

Target: TypeAlias = str | AsyncEngine


# -- a database from outside -----------------------------------------------------------


@asynccontextmanager
async def engine_of_a_host(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Make an engine as a host application does, which the package has no hand in."""
    parsed = make_url(url)
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[parsed.get_backend_name()]
    drivername = f"{parsed.get_backend_name()}+{driver}"
    engine = create_async_engine(parsed.set(drivername=drivername), **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def file_of(url: str) -> str | None:
    """Give the file of a SQLite URL, None for another database."""
    parsed = make_url(url)
    return parsed.database if parsed.get_backend_name() == "sqlite" else None


async def execute(url: str, script: str) -> None:
    """Run SQL with nothing but the driver."""
    file = file_of(url)
    if file is None:
        await on_server(url, script)
        return
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)


def describe(connection: Connection) -> dict[str, list[str]]:
    """Give all that is in a database, by table; a schema is there under its own name."""
    inspector = inspect(connection)
    found: dict[str, list[str]] = {}
    for schema in inspector.get_schema_names():
        if schema == "information_schema":
            continue
        found[schema] = []
        for name in inspector.get_table_names(schema):
            parts: list[Any] = [
                *inspector.get_columns(name, schema),
                inspector.get_pk_constraint(name, schema),
                *inspector.get_foreign_keys(name, schema),
                *inspector.get_unique_constraints(name, schema),
                *inspector.get_check_constraints(name, schema),
                *(with_conditions(index) for index in inspector.get_indexes(name, schema)),
            ]
            if connection.dialect.name == "postgresql":
                collations = text(
                    "SELECT column_name, collation_name FROM information_schema.columns "
                    "WHERE table_schema = :schema AND table_name = :name"
                )
                parts += connection.execute(collations, {"schema": schema, "name": name})
            parts += connection.execute(
                select(text("*")).select_from(table_clause(name, schema=schema))
            )
            found[f"{schema}.{name}"] = sorted(map(repr, parts))
    return found


def with_conditions(index: ReflectedIndex) -> dict[str, Any]:
    """Give an index with the text of which rows it has, in place of an object."""
    options = index.get("dialect_options", {})
    return {**index, "dialect_options": {name: str(value) for name, value in options.items()}}


async def contents(url: str) -> dict[str, list[str]]:
    async with engine_of_a_host(url) as engine, engine.connect() as connection:
        return await connection.run_sync(describe)


async def tables(url: str) -> set[str]:
    """Give the names of all tables, the schema before each unless it is the default one."""
    names = {name for name in await contents(url) if "." in name}
    return {name.removeprefix("main.").removeprefix("public.") for name in names}


async def add_rows(url: str, *, schema: str | None = None) -> None:
    """Keep a run and two steps in a database that is migrated."""
    async with SqlWorkflowStore(url, schema=schema, migrate=False) as store:
        run = WorkflowExecutionState(
            run_task_id="r", agent_id="a", thread_id="t", user_id="u", definition={"steps": []}
        )
        await store.create_run(run)
        for step_id in ("first", "second"):
            await store.upsert_step("r", WorkflowStepState(step_id=step_id, result=[1.0]))


async def set_revision(url: str, revision: str) -> None:
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")


@asynccontextmanager
async def another_migration(url: str) -> AsyncIterator[None]:
    """Hold the lock of the migrations in another session."""
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()
        return
    session = await asyncpg.connect(url)
    try:
        take = "SELECT pg_advisory_lock(hashtextextended($1, 0))"
        await session.execute(take, "workflow_store.", timeout=10)
        yield
        await session.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await session.close()


@pytest.fixture(params=["url", "engine"])
async def target(request: pytest.FixtureRequest, empty_url: str) -> AsyncIterator[Target]:
    """Each way of naming an empty database."""
    if request.param == "url":
        yield empty_url
        return
    options = {"isolation_level": "AUTOCOMMIT"} if request.param == "autocommit-engine" else {}
    async with engine_of_a_host(empty_url, **options) as engine:
        yield engine


# -- the revisions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))


@pytest.mark.parametrize("file", REVISIONS, ids=lambda file: file.stem)
def test_a_revision_goes_up_and_down_and_needs_nothing_of_the_package(file: Path) -> None:
    """A revision works for ever, whatever becomes of the package's code, and has a way back."""
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
    """What a new revision forgets to say in the models, opening a store would."""
    assert script.get_heads() == [REVISION]
    assert len(list(script.walk_revisions())) == len(REVISIONS)


def test_a_newer_revision_has_a_greater_id(script: ScriptDirectory) -> None:
    """Telling a newer database from an older one compares the ids as text."""
    ids = [revision.revision for revision in script.walk_revisions()]
    assert ids == sorted(ids, reverse=True)


# -- models and migrations -------------------------------------------------------------


def differences(connection: Connection, metadata: MetaData, schema: str | None = None) -> list[Any]:
    """Tell what autogenerate would write to bring a database to these models."""
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


async def test_the_migrations_make_the_very_tables_that_the_models_describe(
    empty_url: str,
) -> None:
    """What autogenerate does not compare is the same too: collations, names, identities."""

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
    """Each function tells or changes the revision, inside a running loop, and may be repeated."""
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


async def test_every_revision_goes_down_with_rows_and_up_again(
    empty_url: str, script: ScriptDirectory
) -> None:
    """Each step of the way works by itself and ends at the same tables."""
    await migrate.upgrade(empty_url)
    head = await contents(empty_url)
    await add_rows(empty_url)
    ids = [revision.revision for revision in script.walk_revisions()]
    for older in [*ids[1:], None]:
        await migrate.downgrade(empty_url, older or "base")
        assert await migrate.current(empty_url) == older
        with pytest.raises(SchemaMismatchError, match="alembic upgrade head"):
            await migrate.check(empty_url)
    for newer in reversed(ids):
        await migrate.upgrade(empty_url, newer)
        assert await migrate.current(empty_url) == newer
    assert await contents(empty_url) == head


@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
async def test_the_offline_sql_makes_the_same_database(empty_url: str, schema: str | None) -> None:
    """What a database team applies by hand is what the upgrade does; SQLite has no schemas."""
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
        assert await migrate.current(engine) == REVISION
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


# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["nope", "", "+9", "0001:nope"])
@pytest.mark.parametrize("direction", [migrate.upgrade, migrate.downgrade])
async def test_an_unknown_revision_is_refused(
    empty_url: str, revision: str, direction: Callable[[str, str], Awaitable[None]]
) -> None:
    """A revision that is not there is the caller's mistake, and changes nothing."""
    await migrate.upgrade(empty_url)
    before = await contents(empty_url)
    with pytest.raises(InvalidStateError):
        await direction(empty_url, revision)
    assert await contents(empty_url) == before


@pytest.mark.parametrize("revision", ["nope", "", "base:nope", "base:0001:head"])
async def test_offline_sql_of_an_unknown_revision_is_refused(revision: str) -> None:
    """A revision that is not there is the caller's mistake offline too."""
    with pytest.raises(InvalidStateError):
        await migrate.offline_sql("postgresql://", revision)


async def test_a_relative_revision_is_taken_in_a_schema_that_is_not_there_yet(
    empty_postgres_url: str,
) -> None:
    """One up and one down, as on a database that has its schema."""
    await migrate.upgrade(empty_postgres_url, "+1", schema=ODD_SCHEMA)
    assert await migrate.current(empty_postgres_url, schema=ODD_SCHEMA) is not None
    await migrate.downgrade(empty_postgres_url, "-1", schema=ODD_SCHEMA)
    assert await migrate.current(empty_postgres_url, schema=ODD_SCHEMA) is None


@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
async def test_what_fails_before_it_begins_makes_no_schema(
    empty_postgres_url: str, schema: str | None
) -> None:
    """Only an upgrade that upgrades makes the schema; a downgrade has nothing to do there."""
    before = await contents(empty_postgres_url)
    with pytest.raises(InvalidStateError):
        await migrate.upgrade(empty_postgres_url, "nope", schema=schema)
    assert await migrate.current(empty_postgres_url, schema=schema) is None
    with pytest.raises(SchemaMismatchError):
        await migrate.check(empty_postgres_url, schema=schema)
    assert await contents(empty_postgres_url) == before
    await migrate.downgrade(empty_postgres_url, "base", schema=schema)
    assert set(await contents(empty_postgres_url)) - set(before) <= {f"public.{VERSION_TABLE}"}


async def opened(target: Target, **options: Any) -> None:
    async with SqlWorkflowStore(target, **options):
        pass


async def opened_and_migrated(target: Target) -> None:
    await opened(target, migrate=True)


async def opened_and_checked(target: Target) -> None:
    await opened(target, migrate=False)


async def downgraded(target: Target) -> None:
    await migrate.downgrade(target, "base")


@pytest.mark.parametrize(
    "use",
    [opened, opened_and_migrated, opened_and_checked, migrate.check, migrate.upgrade, downgraded],
)
async def test_a_database_newer_than_the_library_is_refused(
    empty_url: str, use: Callable[[str], Awaitable[None]]
) -> None:
    """An old process neither works on a newer database nor takes it back."""
    await migrate.upgrade(empty_url)
    await add_rows(empty_url)
    await set_revision(empty_url, "9999")
    before = await contents(empty_url)
    with pytest.raises(SchemaMismatchError, match="newer than this version") as caught:
        await use(empty_url)
    assert (caught.value.found, caught.value.expected) == ("9999", REVISION)
    assert await contents(empty_url) == before


@pytest.mark.parametrize("use", [migrate.check, opened_and_checked])
async def test_a_database_behind_the_library_is_refused_with_the_command_that_mends_it(
    empty_url: str, use: Callable[[str], Awaitable[None]]
) -> None:
    """The message says what was found, what is needed, and what to run."""
    await migrate.upgrade(empty_url)
    await set_revision(empty_url, "0000")
    with pytest.raises(SchemaMismatchError, match="`alembic upgrade head`") as caught:
        await use(empty_url)
    assert (caught.value.found, caught.value.expected) == ("0000", REVISION)
    assert "0000" in str(caught.value)
    assert REVISION in str(caught.value)


@pytest.mark.parametrize("use", [migrate.upgrade, downgraded, opened_and_migrated])
async def test_a_revision_that_the_library_never_had_is_a_mismatch(
    empty_url: str, use: Callable[[str], Awaitable[None]]
) -> None:
    """What is wrong is the database, not the argument of the call."""
    await migrate.upgrade(empty_url)
    await set_revision(empty_url, "0000")
    before = await contents(empty_url)
    with pytest.raises(SchemaMismatchError) as caught:
        await use(empty_url)
    assert (caught.value.found, caught.value.expected) == ("0000", REVISION)
    assert await contents(empty_url) == before


async def test_the_command_in_the_message_can_be_pasted_into_a_shell(
    empty_postgres_url: str,
) -> None:
    """A schema that needs quotes is quoted for the shell."""
    with pytest.raises(SchemaMismatchError) as caught:
        await migrate.check(empty_postgres_url, schema=ODD_SCHEMA)
    command = re.search("`(.+)`", str(caught.value))
    assert command is not None
    expected = ["alembic", "-x", f"schema={ODD_SCHEMA}", "upgrade", "head"]
    assert shlex.split(command[1]) == expected


async def test_opening_an_empty_postgresql_database_needs_leave_to_migrate(
    empty_postgres_url: str,
) -> None:
    """On PostgreSQL opening only checks, so that a process needs no right to create tables."""
    for use in (opened, opened_and_checked):
        with pytest.raises(SchemaMismatchError, match="migrate=True") as caught:
            await use(empty_postgres_url)
        assert (caught.value.found, caught.value.expected) == (None, REVISION)
    assert await tables(empty_postgres_url) == set()
    await opened_and_migrated(empty_postgres_url)
    await opened(empty_postgres_url)


async def test_opening_an_empty_sqlite_file_without_leave_to_migrate_is_refused(
    sqlite_url: str,
) -> None:
    """On SQLite opening migrates, unless it may not."""
    with pytest.raises(SchemaMismatchError, match="alembic upgrade head") as caught:
        await opened_and_checked(sqlite_url)
    assert (caught.value.found, caught.value.expected) == (None, REVISION)
    assert await tables(sqlite_url) == set()
    await opened(sqlite_url)
    await opened_and_checked(sqlite_url)


@pytest.mark.parametrize("target", ["url", "engine", "autocommit-engine"], indirect=True)
@pytest.mark.parametrize("name", ["runs", "steps"])
async def test_a_table_of_somebody_elses_stays_as_it_is(
    target: Target, empty_url: str, name: str
) -> None:
    """A migration that fails leaves no half behind, the first tables and the version included."""
    foreign = f"CREATE TABLE {name} (id INTEGER PRIMARY KEY); INSERT INTO {name} VALUES (7)"
    await execute(empty_url, foreign)
    before = await contents(empty_url)
    for use in (migrate.upgrade, opened_and_migrated):
        with pytest.raises(WorkflowStoreError):
            await use(target)
        assert await contents(empty_url) == before
    assert await migrate.current(target) is None
    await execute(empty_url, f"DROP TABLE {name}")
    await migrate.upgrade(target)
    await migrate.check(target)


# -- one at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
async def test_a_migration_gives_up_where_another_one_does_not_end(
    target: Target, empty_url: str, direction: str
) -> None:
    """After the timeout nothing goes on without the lock."""
    if direction == "downgrade":
        await migrate.upgrade(empty_url)
    revision = {"upgrade": "head", "downgrade": "base"}[direction]
    move = getattr(migrate, direction)
    before = await contents(empty_url)
    async with another_migration(empty_url):
        with pytest.raises(StoreUnavailableError):
            await move(target, revision, lock_timeout_s=0.5)
        assert await contents(empty_url) == before
    await move(target, revision, lock_timeout_s=0.5)
    assert await migrate.current(target) == (REVISION if direction == "upgrade" else None)


async def test_a_migration_waits_for_another_one_to_end(target: Target, empty_url: str) -> None:
    """What waits has done nothing, and goes on by itself."""
    before = await contents(empty_url)
    async with another_migration(empty_url):
        upgrade = asyncio.create_task(migrate.upgrade(target, lock_timeout_s=PATIENCE_S))
        done, _ = await asyncio.wait({upgrade}, timeout=0.3)
        assert not done
        assert await contents(empty_url) == before
    await upgrade
    await migrate.check(target)


async def test_a_cancelled_migration_ends_at_once_and_lets_go_of_the_lock(
    target: Target, empty_url: str
) -> None:
    """Who gives up waiting keeps nobody else from migrating, on the same engine too."""
    async with another_migration(empty_url):
        upgrade = asyncio.create_task(migrate.upgrade(target, lock_timeout_s=10))
        await asyncio.wait({upgrade}, timeout=0.1)
        upgrade.cancel()
        ended_at_once, _ = await asyncio.wait({upgrade}, timeout=5)
    with pytest.raises(asyncio.CancelledError):
        await upgrade
    await migrate.upgrade(target, lock_timeout_s=PATIENCE_S)
    await migrate.check(target)
    assert ended_at_once


async def test_a_migration_that_waits_keeps_no_other_database_waiting(
    empty_url: str, tmp_path: Path
) -> None:
    """One database that stays locked is no reason to fail for another one in the process."""
    other = f"sqlite:///{tmp_path}/other.db"
    async with another_migration(empty_url):
        waiting = asyncio.create_task(migrate.upgrade(empty_url, lock_timeout_s=PATIENCE_S))
        await asyncio.wait({waiting}, timeout=0.3)
        await migrate.upgrade(other, lock_timeout_s=0.5)
        await migrate.offline_sql(other)
    await waiting
    await migrate.check(other)


async def test_a_migration_waits_for_a_reader_of_the_file_to_end(sqlite_url: str) -> None:
    """Without a write-ahead log a commit has to wait for readers, for as long as was said."""
    await execute(sqlite_url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
    with closing(sqlite3.connect(make_url(sqlite_url).database or "")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM accounts").fetchall()
        upgrade = asyncio.create_task(migrate.upgrade(sqlite_url, lock_timeout_s=PATIENCE_S))
        done, _ = await asyncio.wait({upgrade}, timeout=0.5)
        assert not done
        reader.rollback()
    await upgrade
    await migrate.check(sqlite_url)


@pytest.mark.parametrize("lock_timeout_s", [0.2, 0])
async def test_a_migration_gives_up_on_a_table_that_stays_in_use(
    empty_postgres_url: str, lock_timeout_s: float
) -> None:
    """Behind a migration that waits for a table, every later query would wait too."""
    await migrate.upgrade(empty_postgres_url)
    await add_rows(empty_postgres_url)
    await migrate.downgrade(empty_postgres_url, "0001")  # the revisions that need no table
    before = await contents(empty_postgres_url)
    reader = await asyncpg.connect(empty_postgres_url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM runs")
            async with asyncio.timeout(5):
                with pytest.raises(StoreUnavailableError):
                    await migrate.downgrade(
                        empty_postgres_url, "base", lock_timeout_s=lock_timeout_s
                    )
    finally:
        await reader.close()
    assert await contents(empty_postgres_url) == before


async def test_indexes_are_built_beside_writers_and_a_build_that_was_cut_off_is_repeated(
    empty_postgres_url: str,
) -> None:
    """What an interrupted build leaves behind is not valid, and is built anew."""
    url = empty_postgres_url
    await migrate.upgrade(url)
    await add_rows(url)
    await migrate.downgrade(url, "0003")
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    writer, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with writer.transaction():
            await writer.execute("UPDATE runs SET agent_id = 'b'")  # a build waits for its end
            upgrade = asyncio.ensure_future(migrate.upgrade(url, lock_timeout_s=1))
            while not await other.fetchval(invalid):  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.01)
            await other.execute("UPDATE steps SET status = 'failed'", timeout=PATIENCE_S)
            with pytest.raises(StoreUnavailableError):
                await upgrade
        assert await other.fetchval(invalid) == 1
        assert await migrate.current(url) == "0003"
        await migrate.upgrade(url)
        assert await other.fetchval(invalid) == 0
        await migrate.check(url)
    finally:
        await writer.close()
        await other.close()


async def test_a_migration_may_take_longer_than_a_statement_of_a_store(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit of a store's statements is not one for building an index."""
    monkeypatch.setitem(options._DEFAULTS, "statement_timeout_s", 0.2)
    await migrate.upgrade(empty_postgres_url)
    reader = await asyncpg.connect(empty_postgres_url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM runs")
            downgrade = asyncio.create_task(migrate.downgrade(empty_postgres_url, "base"))
            done, _ = await asyncio.wait({downgrade}, timeout=0.6)
            assert not done
    finally:
        await reader.close()
    await downgrade


# -- many at once ----------------------------------------------------------------------

PROCESSES = 5
_start: dict[str, Barrier] = {}


def _get_ready(start: Barrier) -> None:
    _start["at once"] = start


def _open_when_all_are_ready(url: str) -> None:
    async def work() -> None:
        async with SqlWorkflowStore(url, migrate=True) as store:
            assert await store.list_steps("r") == []

    _start["at once"].wait(PATIENCE_S)
    asyncio.run(work())


@pytest.fixture
def ten_empty_urls(empty_url: str, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    if file_of(empty_url) is not None:
        yield [f"{empty_url}.{number}" for number in range(10)]
        return
    server = request.getfixturevalue("postgres_server")
    urls = [new_database(server) for _ in range(10)]
    yield urls
    for url in urls:
        drop_database(server, url)


def test_five_processes_that_open_an_empty_database_at_once_all_succeed(
    ten_empty_urls: list[str],
) -> None:
    """One migrates and the others wait, ten times in a row."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, spawn, _get_ready, (start,)) as processes:
        for url in ten_empty_urls:
            opening = [processes.submit(_open_when_all_are_ready, url) for _ in range(PROCESSES)]
            for opened_one in opening:
                opened_one.result(PATIENCE_S)
            asyncio.run(migrate.check(url))
            assert asyncio.run(tables(url)) == OURS


async def test_five_stores_that_open_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    """Stores of one process wait for each other as those of several do."""
    opening = (opened_and_migrated(empty_url) for _ in range(5))
    assert await asyncio.gather(*opening, return_exceptions=True) == [None] * 5
    assert await tables(empty_url) == OURS


@pytest.mark.parametrize("where", ["one loop", "threads"])
async def test_databases_migrated_at_once_in_one_process_each_get_their_own_tables(
    empty_url: str, where: str
) -> None:
    """Two migrations of different databases share nothing, though Alembic keeps globals."""
    file = file_of(empty_url)
    places: list[tuple[str, str | None]] = [
        (empty_url, f"schema_{number}") if file is None else (f"{empty_url}.{number}", None)
        for number in range(4)
    ]
    upgrades = [asyncio.wait_for(migrate.upgrade(url, schema=schema), 10) for url, schema in places]
    if where == "threads":
        upgrades = [asyncio.to_thread(asyncio.run, upgrade) for upgrade in upgrades]
    assert await asyncio.gather(*upgrades, return_exceptions=True) == [None] * 4
    for url, schema in places:
        await migrate.check(url, schema=schema)
        prefix = f"{schema}." if schema else ""
        assert {f"{prefix}{name}" for name in OURS} <= await tables(url)


async def test_offline_sql_does_not_disturb_an_upgrade_under_way(empty_url: str) -> None:
    """A program may write the SQL of one database while it migrates another."""
    expected = await migrate.offline_sql("postgresql://")
    upgrade = asyncio.create_task(migrate.upgrade(empty_url))
    while not upgrade.done():
        assert await migrate.offline_sql("postgresql://") == expected
        await asyncio.sleep(0)
    assert upgrade.exception() is None
    await migrate.check(empty_url)
