"""What the migrations and an opening refuse, and leave as it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from support.databases import Target
from support.schema import (
    ODD_SCHEMA,
    add_rows,
    contents,
    downgraded,
    execute,
    opened,
    opened_and_checked,
    opened_and_migrated,
    set_revision,
    tables,
)
from workflow_store import (
    InvalidStateError,
    SchemaMismatchError,
    StoreUnavailableError,
    WorkflowStoreError,
)
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION, VERSION_TABLE


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
    commands = re.findall("`(.+?)`", str(caught.value))
    assert [shlex.split(command) for command in commands] == [
        ["workflow-store", "migrate", "--schema", ODD_SCHEMA],
        ["alembic", "-x", f"schema={ODD_SCHEMA}", "upgrade", "head"],
    ]


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
    """On SQLite opening migrates, unless it may not; then the file stays as it is."""
    file = Path(str(make_url(sqlite_url).database))
    file.touch()
    with pytest.raises(SchemaMismatchError, match="alembic upgrade head") as caught:
        await opened_and_checked(sqlite_url)
    assert (caught.value.found, caught.value.expected) == (None, REVISION)
    assert file.read_bytes() == b""
    await opened(sqlite_url)
    await opened_and_checked(sqlite_url)


@pytest.mark.parametrize("ask", [migrate.check, migrate.current, opened_and_checked])
async def test_asking_for_a_sqlite_file_that_is_missing_never_makes_it(
    sqlite_url: str, ask: Callable[[str], Awaitable[object]]
) -> None:
    """A typo in a path is told, and leaves no empty file behind."""
    with pytest.raises(StoreUnavailableError, match=r"not there.*workflow-store migrate"):
        await ask(sqlite_url)
    assert not Path(str(make_url(sqlite_url).database)).exists()


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
