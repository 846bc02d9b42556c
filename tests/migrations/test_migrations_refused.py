"""What migrations and opening a store refuse, without any change."""

from __future__ import annotations

import re
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from support.databases import Target
from support.next_version import FIRST, NEXT
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

pytestmark = [pytest.mark.slow, pytest.mark.measured]


@pytest.mark.parametrize("revision", ["nope", "", "+9", f"{FIRST}:nope"])
@pytest.mark.parametrize("direction", [migrate.upgrade, migrate.downgrade])
async def test_an_unknown_revision_is_refused(
    empty_url: str, revision: str, direction: Callable[[str, str], Awaitable[None]]
) -> None:
    """An unknown revision is the caller's mistake, and changes nothing."""
    await migrate.upgrade(empty_url)
    before = await contents(empty_url)
    with pytest.raises(InvalidStateError):
        await direction(empty_url, revision)
    assert await contents(empty_url) == before


@pytest.mark.parametrize("revision", ["nope", "", "base:nope", f"base:{FIRST}:head"])
async def test_offline_sql_of_an_unknown_revision_is_refused(revision: str) -> None:
    """An unknown revision is the caller's mistake offline too."""
    with pytest.raises(InvalidStateError):
        await migrate.offline_sql("postgresql://", revision)


async def test_a_relative_revision_is_accepted_in_a_schema_that_does_not_exist_yet(
    empty_postgres_url: str,
) -> None:
    """One up and one down, as in a schema that exists."""
    await migrate.upgrade(empty_postgres_url, "+1", schema=ODD_SCHEMA)
    assert await migrate.current(empty_postgres_url, schema=ODD_SCHEMA) is not None
    await migrate.downgrade(empty_postgres_url, "-1", schema=ODD_SCHEMA)
    assert await migrate.current(empty_postgres_url, schema=ODD_SCHEMA) is None


@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
async def test_a_migration_that_does_not_start_creates_no_schema(
    empty_postgres_url: str, schema: str | None
) -> None:
    """Only an upgrade to a known revision creates the schema; a downgrade does nothing there."""
    before = await contents(empty_postgres_url)
    with pytest.raises(InvalidStateError):
        await migrate.upgrade(empty_postgres_url, "nope", schema=schema)
    assert await migrate.current(empty_postgres_url, schema=schema) is None
    with pytest.raises(SchemaMismatchError):
        await migrate.check(empty_postgres_url, schema=schema)
    assert await contents(empty_postgres_url) == before
    await migrate.downgrade(empty_postgres_url, "base", schema=schema)
    assert set(await contents(empty_postgres_url)) - set(before) <= {f"public.{VERSION_TABLE}"}


@pytest.mark.parametrize("revision", ["ws_9999", "ws_0000", "0004", "1a2b3c"])
@pytest.mark.parametrize(
    "use",
    [opened, opened_and_migrated, opened_and_checked, migrate.check, migrate.upgrade, downgraded],
)
async def test_a_database_newer_than_the_library_is_refused(
    empty_url: str, use: Callable[[str], Awaitable[None]], revision: str
) -> None:
    """An old process neither uses nor downgrades a newer database.

    Any unknown revision is of a newer version, whatever its id is.
    """
    await migrate.upgrade(empty_url)
    await add_rows(empty_url)
    await set_revision(empty_url, revision)
    before = await contents(empty_url)
    with pytest.raises(SchemaMismatchError, match="newer than this version") as caught:
        await use(empty_url)
    assert (caught.value.found, caught.value.expected) == (revision, REVISION)
    assert revision in str(caught.value)
    assert "workflow-store migrate" not in str(caught.value)
    assert await contents(empty_url) == before


@pytest.mark.usefixtures("next_version")
@pytest.mark.parametrize("use", [migrate.check, opened_and_checked])
async def test_a_database_behind_the_library_is_refused_with_the_command_that_fixes_it(
    empty_url: str, use: Callable[[str], Awaitable[None]]
) -> None:
    """The message names both revisions, and the commands to run."""
    await migrate.upgrade(empty_url, FIRST)
    with pytest.raises(
        SchemaMismatchError, match="`alembic upgrade workflow_store@head`"
    ) as caught:
        await use(empty_url)
    assert (caught.value.found, caught.value.expected) == (FIRST, NEXT)
    assert f"is at revision {FIRST}, but this version requires {NEXT}" in str(caught.value)
    assert "newer" not in str(caught.value)


@pytest.mark.usefixtures("next_version")
async def test_opening_a_sqlite_file_behind_the_library_upgrades_it(sqlite_url: str) -> None:
    """Its runs stay."""
    await migrate.upgrade(sqlite_url, FIRST)
    await opened(sqlite_url)
    assert await migrate.current(sqlite_url) == NEXT


async def test_the_command_in_the_message_can_be_pasted_into_a_shell(
    empty_postgres_url: str,
) -> None:
    """A schema that needs quotes is quoted for the shell."""
    with pytest.raises(SchemaMismatchError) as caught:
        await migrate.check(empty_postgres_url, schema=ODD_SCHEMA)
    commands = re.findall("`(.+?)`", str(caught.value))
    assert [shlex.split(command) for command in commands] == [
        ["workflow-store", "migrate", "--schema", ODD_SCHEMA, "--url", "URL"],
        ["pip", "install", "workflow-store[cli]"],
        ["alembic", "upgrade", "workflow_store@head"],
    ]


async def test_opening_an_empty_postgresql_database_needs_permission_to_migrate(
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


async def test_opening_an_empty_sqlite_file_without_permission_to_migrate_is_refused(
    sqlite_url: str,
) -> None:
    """On SQLite opening migrates, unless it may not; then the file stays as it is."""
    file = Path(str(make_url(sqlite_url).database))
    file.touch()
    with pytest.raises(SchemaMismatchError, match="workflow-store migrate") as caught:
        await opened_and_checked(sqlite_url)
    assert (caught.value.found, caught.value.expected) == (None, REVISION)
    assert file.read_bytes() == b""
    await opened(sqlite_url)
    await opened_and_checked(sqlite_url)


@pytest.mark.parametrize("ask", [migrate.check, migrate.current, opened_and_checked])
async def test_reading_the_revision_of_a_missing_sqlite_file_does_not_create_it(
    sqlite_url: str, ask: Callable[[str], Awaitable[object]]
) -> None:
    """A typo in a path is an error, and leaves no empty file behind."""
    with pytest.raises(StoreUnavailableError, match=r"does not exist.*workflow-store migrate"):
        await ask(sqlite_url)
    assert not Path(str(make_url(sqlite_url).database)).exists()


@pytest.mark.parametrize("target", ["url", "engine", "autocommit-engine"], indirect=True)
@pytest.mark.parametrize("name", ["runs", "steps"])
async def test_a_foreign_table_stays_as_it_is(target: Target, empty_url: str, name: str) -> None:
    """A migration that fails leaves nothing behind, neither tables nor a version."""
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
