"""Our revisions as a branch in a host's own Alembic, run by the real command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from support.host_project import Host
from support.schema import OURS, add_rows, contents, execute, opened_and_checked, tables
from workflow_store import SchemaMismatchError
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION, VERSION_TABLE

pytestmark = pytest.mark.slow

FIRST, HEAD = "4f1c0a9d7b2e", "8d2b51e07c3f"
HOSTS = {"accounts", "orders", "alembic_version"}


@pytest.fixture
def host(tmp_path: Path, empty_url: str) -> Host:
    """A host with two revisions of its own and an empty database."""
    return Host(tmp_path / "host", empty_url)


@pytest.fixture
def host_on_postgresql(tmp_path: Path, empty_postgres_url: str) -> Host:
    return Host(tmp_path / "host", empty_postgres_url)


def our_revision(host: Host, schema: str | None = None) -> str | None:
    return asyncio.run(migrate.current(host.url, schema=schema))


def tables_of(host: Host) -> set[str]:
    return asyncio.run(tables(host.url))


def our_contents(host: Host) -> dict[str, list[str]]:
    """Give all that is in our tables, and how they are made."""
    found = asyncio.run(contents(host.url))
    return {name: what for name, what in found.items() if name.rpartition(".")[2] in OURS}


def rows(host: Host) -> list[str]:
    """Give the lines that hold the run or one of its steps."""
    found = our_contents(host)
    return sorted(line for what in found.values() for line in what if "'r', " in line)


def execute_in(host: Host, script: str) -> None:
    asyncio.run(execute(host.url, script))


def assert_store_opens(host: Host, schema: str | None = None) -> None:
    asyncio.run(migrate.check(host.url, schema=schema))
    asyncio.run(opened_and_checked(host.url, schema=schema))


def test_one_command_brings_both_up_and_down(host: Host) -> None:
    """What is there then is what our own migration makes; each branch goes down by itself."""
    asyncio.run(migrate.upgrade(host.url))
    made_by_us = our_contents(host)
    asyncio.run(migrate.downgrade(host.url, "base"))
    execute_in(host, f"DROP TABLE {VERSION_TABLE}")

    assert {line.split()[0] for line in host.command("heads").splitlines()} == {HEAD, REVISION}
    host.command("upgrade", "heads")
    assert our_contents(host) == made_by_us
    assert host.revisions() == {HEAD, REVISION}
    assert tables_of(host) == HOSTS | OURS
    assert_store_opens(host)
    asyncio.run(add_rows(host.url))

    host.command("downgrade", "0002")
    assert our_revision(host) == "0002"
    with pytest.raises(SchemaMismatchError, match="at revision 0002"):
        asyncio.run(opened_and_checked(host.url))
    host.command("upgrade", "heads")
    assert_store_opens(host)
    host.alembic("downgrade", "host@-1")
    assert tables_of(host) == {"accounts", "alembic_version", *OURS}
    assert_store_opens(host)
    host.alembic("upgrade", "heads")
    host.alembic("downgrade", "0001@base")
    assert tables_of(host) == HOSTS | {VERSION_TABLE}
    assert our_revision(host) is None
    host.alembic("upgrade", "heads")
    assert_store_opens(host)


def test_autogenerate_finds_nothing_of_ours_to_do(host: Host) -> None:
    """The host's next revision follows its own head, and has what the host changed alone."""
    host.alembic("upgrade", "heads")
    assert "No new upgrade operations" in host.alembic("check")

    host.change(
        "application.py",
        'Table("accounts", metadata, ',
        'Table("accounts", metadata, Column("age", Integer), ',
    )
    host.alembic("revision", "--autogenerate", "--message", "age", "--head", "host@head")
    (written,) = (host.folder / "alembic" / "versions").glob("*_age.py")
    text = written.read_text("utf-8")
    assert f"down_revision = '{HEAD}'" in text
    assert [line.strip().split("(")[0] for line in text.splitlines() if "    op." in line] == [
        "op.add_column",
        "op.drop_column",
    ]
    host.alembic("upgrade", "heads")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)


def test_a_host_without_asyncio_brings_both_up(tmp_path: Path, sqlite_url: str) -> None:
    """The functions of ours that `env.py` hands over ask for no event loop."""
    host = Host(tmp_path / "host", sqlite_url)
    host.runs_synchronously()
    host.alembic("upgrade", "heads")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)
    host.alembic("downgrade", "0001@base")
    assert our_revision(host) is None


@pytest.mark.parametrize("revision", ["0002", REVISION])
def test_a_database_that_we_migrated_joins_the_hosts_branches(host: Host, revision: str) -> None:
    """Stamped with the revision that it is at, it goes on from there and keeps its runs."""
    asyncio.run(migrate.upgrade(host.url))
    asyncio.run(add_rows(host.url))
    asyncio.run(migrate.downgrade(host.url, revision))
    before = rows(host)
    host.alembic("upgrade", "host@head")
    host.alembic("stamp", revision)
    assert host.revisions() == {HEAD, revision}
    assert our_revision(host) == revision
    host.alembic("upgrade", "heads")
    assert host.revisions() == {HEAD, REVISION}
    assert_store_opens(host)
    assert rows(host) == before
    assert len(before) == 3


def test_a_database_that_the_host_migrated_goes_on_without_the_branch(host: Host) -> None:
    """Our version table is as our own migrations leave it, so that they take over."""
    host.alembic("upgrade", "heads")
    host.alembic("downgrade", "0003")
    asyncio.run(migrate.upgrade(host.url))
    assert_store_opens(host)
    host.leaves_our_revisions()
    host.alembic("stamp", "--purge", "head")
    assert host.revisions() == {HEAD}
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)


def test_a_stamp_vouches_for_no_tables_that_are_not_there(host: Host) -> None:
    """A host that makes its tables itself and stamps all heads has not made ours."""
    host.alembic("stamp", "heads")
    assert our_revision(host) is None
    with pytest.raises(SchemaMismatchError, match="no tables"):
        asyncio.run(opened_and_checked(host.url))
    asyncio.run(migrate.upgrade(host.url))
    assert_store_opens(host)


def test_a_stamp_leaves_the_revision_that_our_tables_are_at(host: Host) -> None:
    """A wrong stamp is found by the check, and does not make it blind."""
    asyncio.run(migrate.upgrade(host.url, "0002"))
    host.alembic("stamp", "heads")
    with pytest.raises(SchemaMismatchError, match="at revision 0002"):
        asyncio.run(migrate.check(host.url))


def test_a_host_that_ran_our_revisions_without_the_function_can_mend_it(host: Host) -> None:
    """Our tables are there then, and no version of theirs. A stamp would vouch for any tables."""
    line = "        on_version_apply=migrate.on_version_apply,  # our version table goes along\n"
    host.change("alembic/env.py", line, "")
    host.alembic("upgrade", "heads")
    assert our_revision(host) is None
    host.change("alembic/env.py", "        transaction_per", line + "        transaction_per")
    host.alembic("stamp", "--purge", "heads")
    assert our_revision(host) is None
    host.alembic("downgrade", "0003")
    host.alembic("upgrade", "heads")
    assert host.revisions() == {HEAD, REVISION}
    assert_store_opens(host)


def test_a_revision_that_fails_moves_neither_version(host: Host) -> None:
    """Both are written in the transaction of the revision."""
    execute_in(host, "CREATE TABLE claims (id INTEGER PRIMARY KEY)")
    with pytest.raises(DBAPIError, match="claims"):
        host.alembic("upgrade", "heads")
    assert our_revision(host) == "0002"
    assert "0002" in host.revisions()
    execute_in(host, "DROP TABLE claims")
    host.alembic("upgrade", "heads")
    assert_store_opens(host)


def test_branches_that_the_host_merges_are_followed(host: Host) -> None:
    """A merge of all heads, or a revision that depends on ours, has ours among its ancestors."""
    host.alembic("merge", "heads", "--message", "both")
    host.alembic("upgrade", "head")
    assert REVISION not in host.revisions()
    assert_store_opens(host)
    host.alembic("downgrade", "0003")
    assert our_revision(host) == "0003"
    host.alembic("upgrade", "head")
    assert_store_opens(host)


def test_a_revision_of_the_hosts_may_depend_on_ours(host: Host) -> None:
    """Our tables are there when it runs, and our version is known afterwards."""
    name = "alembic/versions/second.py"
    host.change(name, "\n\n\ndef upgrade", f'\ndepends_on = "{REVISION}"\n\n\ndef upgrade')
    host.alembic("upgrade", HEAD)
    assert tables_of(host) == HOSTS | OURS
    assert_store_opens(host)
    host.alembic("downgrade", "host@base")
    assert_store_opens(host)
    host.alembic("downgrade", "0001@base")
    assert our_revision(host) is None


def test_both_as_offline_sql(host: Host) -> None:
    """What the command prints brings both up, and each knows its revision then."""
    printed = host.alembic("upgrade", "heads", "--sql")
    execute_in(host, printed)
    assert host.revisions() == {HEAD, REVISION}
    assert_store_opens(host)
    assert "No new upgrade operations" in host.alembic("check")
    execute_in(host, host.alembic("downgrade", f"{REVISION}:0002", "--sql"))
    assert our_revision(host) == "0002"
    execute_in(host, host.alembic("stamp", f"0002:{REVISION}", "--sql"))
    assert REVISION in host.revisions()
    assert our_revision(host) == "0002"


def test_ours_are_in_the_schema_of_the_hosts_version_table(host_on_postgresql: Host) -> None:
    """It is the one schema that our revisions ask Alembic for."""
    host = host_on_postgresql
    host.configures(include_schemas=True, version_table_schema="app")
    host.filters_by_schema("app")
    execute_in(host, "CREATE SCHEMA app")
    host.alembic("upgrade", "heads")
    assert tables_of(host) == {"accounts", "orders", "app.alembic_version"} | {
        f"app.{name}" for name in OURS
    }
    assert_store_opens(host, "app")
    host.alembic("downgrade", "0001@base")
    assert our_revision(host, "app") is None


def test_ours_in_a_schema_apart_from_the_hosts_alembic(host_on_postgresql: Host) -> None:
    """Two commands, two version tables, and one filter for the host's autogenerate."""
    host = host_on_postgresql
    host.leaves_our_revisions()
    host.configures(include_schemas=True)
    host.filters_by_schema("workflows")
    asyncio.run(migrate.upgrade(host.url, schema="workflows"))
    host.alembic("upgrade", "head")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host, "workflows")
