"""A host's own Alembic apart from ours, or with our revisions as a branch: docs/host.md."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from support.host_project import BLOCKS, Host
from support.next_version import FIRST, NEXT
from support.schema import OURS, add_rows, contents, execute, opened_and_checked, tables
from workflow_store import RunSnapshot, SchemaMismatchError, open_store
from workflow_store.sql import migrate
from workflow_store.sql.models import VERSION_TABLE

pytestmark = pytest.mark.slow

HEAD = "8d2b51e07c3f"  # of the host
HOSTS = {"accounts", "orders", "alembic_version"}


@pytest.fixture
def host(tmp_path: Path, empty_url: str, next_version: None) -> Host:
    """A host with two revisions of its own beside two of ours, and an empty database."""
    return Host(tmp_path / "host", empty_url)


@pytest.fixture
def host_on_postgresql(tmp_path: Path, empty_postgres_url: str, next_version: None) -> Host:
    return Host(tmp_path / "host", empty_postgres_url)


def our_revision(host: Host, schema: str | None = None) -> str | None:
    return asyncio.run(migrate.current(host.url, schema=schema))


def tables_of(host: Host) -> set[str]:
    return asyncio.run(tables(host.url))


def our_contents(host: Host) -> dict[str, list[str]]:
    """Return our tables, with their columns and rows."""
    found = asyncio.run(contents(host.url))
    return {name: what for name, what in found.items() if name.rpartition(".")[2] in OURS}


async def run_with_steps(url: str) -> RunSnapshot:
    """Return the run that `add_rows` adds."""
    async with open_store(url, migrate=False) as store:
        snapshot = await store.load_run("r")
    assert snapshot is not None
    return snapshot


def execute_in(host: Host, script: str) -> None:
    asyncio.run(execute(host.url, script))


def assert_store_opens(host: Host, schema: str | None = None) -> None:
    asyncio.run(migrate.check(host.url, schema=schema))
    asyncio.run(opened_and_checked(host.url, schema=schema))


def test_one_command_brings_both_up_and_down(host: Host) -> None:
    """The result is that of our own migration; each branch goes down on its own."""
    asyncio.run(migrate.upgrade(host.url))
    made_by_us = our_contents(host)
    asyncio.run(migrate.downgrade(host.url, "base"))
    execute_in(host, f"DROP TABLE {VERSION_TABLE}")

    assert {line.split()[0] for line in host.command("heads").splitlines()} == {HEAD, NEXT}
    host.command("upgrade", "heads")
    assert our_contents(host) == made_by_us
    assert host.revisions() == {HEAD, NEXT}
    assert tables_of(host) == HOSTS | OURS
    assert_store_opens(host)
    asyncio.run(add_rows(host.url))

    host.command("downgrade", FIRST)
    assert our_revision(host) == FIRST
    with pytest.raises(SchemaMismatchError, match=f"at revision {FIRST}"):
        asyncio.run(opened_and_checked(host.url))
    host.command("upgrade", "heads")
    assert_store_opens(host)
    host.alembic("downgrade", "host@-1")
    assert tables_of(host) == {"accounts", "alembic_version", *OURS}
    assert_store_opens(host)
    host.alembic("upgrade", "heads")
    host.alembic("downgrade", "workflow_store@base")
    assert tables_of(host) == HOSTS | {VERSION_TABLE}
    assert our_revision(host) is None
    host.alembic("upgrade", "heads")
    assert_store_opens(host)


def test_autogenerate_finds_nothing_of_ours_to_do(host: Host) -> None:
    """The host's next revision follows its own head, and has only the host's changes."""
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
    assert re.search(rf"^down_revision: .+ = '{HEAD}'$", text, re.MULTILINE)
    assert [line.strip().split("(")[0] for line in text.splitlines() if "    op." in line] == [
        "op.add_column",
        "op.drop_column",
    ]
    host.alembic("upgrade", "heads")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)


def test_commands_that_mean_one_head_must_name_it(host: Host) -> None:
    """As docs/host.md says: the error, and what to type instead."""
    assert "Multiple head revisions" in host.command("upgrade", "head", succeeds=False)
    host.command("upgrade", "workflow_store@head")
    assert host.revisions() == {NEXT}
    assert_store_opens(host)
    host.command("upgrade", "host@head")
    assert host.revisions() == {HEAD, NEXT}
    autogenerate = ("revision", "--autogenerate", "--message", "new")
    assert "Multiple heads" in host.command(*autogenerate, succeeds=False)
    host.command(*autogenerate, "--head", "host@head")
    assert len(list((host.folder / "alembic" / "versions").glob("*_new.py"))) == 1


def test_a_host_without_asyncio_brings_both_up(
    tmp_path: Path, sqlite_url: str, next_version: None
) -> None:
    """Our hooks need no event loop."""
    host = Host(tmp_path / "host", sqlite_url)
    host.runs_synchronously()
    host.alembic("upgrade", "heads")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)
    host.alembic("downgrade", "workflow_store@base")
    assert our_revision(host) is None


@pytest.mark.parametrize("revision", [FIRST, NEXT])
def test_a_database_that_we_migrated_joins_the_hosts_branches(host: Host, revision: str) -> None:
    """Stamped with its revision, it continues from there and keeps its runs."""
    asyncio.run(migrate.upgrade(host.url))
    asyncio.run(add_rows(host.url))
    before = asyncio.run(run_with_steps(host.url))
    assert [step.step_id for step in before.steps] == ["first", "second"]
    asyncio.run(migrate.downgrade(host.url, revision))
    host.alembic("upgrade", "host@head")
    host.alembic("stamp", revision)
    assert host.revisions() == {HEAD, revision}
    assert our_revision(host) == revision
    host.alembic("upgrade", "heads")
    assert host.revisions() == {HEAD, NEXT}
    assert_store_opens(host)
    assert asyncio.run(run_with_steps(host.url)) == before


def test_a_database_that_the_host_migrated_continues_without_the_branch(host: Host) -> None:
    """Our own migrations take over, since our version table is up to date."""
    host.alembic("upgrade", "heads")
    host.alembic("downgrade", FIRST)
    asyncio.run(migrate.upgrade(host.url))
    assert_store_opens(host)
    host.leaves_our_revisions()
    host.alembic("stamp", "--purge", "head")
    assert host.revisions() == {HEAD}
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host)


def test_a_stamp_does_not_claim_tables_that_do_not_exist(host: Host) -> None:
    """A host that creates its tables itself and stamps all heads has not created ours."""
    host.alembic("stamp", "heads")
    assert our_revision(host) is None
    with pytest.raises(SchemaMismatchError, match="no workflow-store tables"):
        asyncio.run(opened_and_checked(host.url))
    asyncio.run(migrate.upgrade(host.url))
    assert_store_opens(host)


def test_a_stamp_does_not_change_our_revision(host: Host) -> None:
    """The check finds a wrong stamp."""
    asyncio.run(migrate.upgrade(host.url, FIRST))
    host.alembic("stamp", "heads")
    with pytest.raises(SchemaMismatchError, match=f"at revision {FIRST}"):
        asyncio.run(migrate.check(host.url))


@pytest.mark.parametrize("how", ["by our next revision", "by hand"])
def test_a_host_that_ran_our_revisions_without_the_hook_can_fix_it(host: Host, how: str) -> None:
    """It has our tables without their version, which a stamp does not write."""
    asyncio.run(migrate.upgrade(host.url, FIRST))
    version_table = our_contents(host)
    asyncio.run(migrate.downgrade(host.url, "base"))
    execute_in(host, f"DROP TABLE {VERSION_TABLE}")

    hook = (
        '    "on_version_apply": migrate.on_version_apply,  # keeps our version table up to date\n'
    )
    host.change("alembic/env.py", hook, "")
    host.alembic("upgrade", FIRST)
    assert our_revision(host) is None
    host.change("alembic/env.py", '    "transaction_per', hook + '    "transaction_per')
    host.alembic("stamp", "--purge", FIRST)
    assert our_revision(host) is None
    if how == "by hand":
        execute_in(host, BLOCKS["version.sql"])
        assert our_contents(host) == version_table
    host.alembic("upgrade", "heads")
    assert host.revisions() == {HEAD, NEXT}
    assert our_revision(host) == NEXT
    assert_store_opens(host)


def test_a_revision_that_fails_changes_neither_version(host: Host) -> None:
    """Both are written in the transaction of the revision."""
    host.alembic("upgrade", FIRST)
    execute_in(host, "ALTER TABLE runs ADD COLUMN attempts INTEGER")
    with pytest.raises(DBAPIError, match="attempts"):
        host.alembic("upgrade", "heads")
    assert our_revision(host) == FIRST
    assert FIRST in host.revisions()
    execute_in(host, "ALTER TABLE runs DROP COLUMN attempts")
    host.alembic("upgrade", "heads")
    assert_store_opens(host)


def test_branches_that_the_host_merges_are_followed(host: Host) -> None:
    """A merge of all heads, or a revision that depends on ours, has ours among its ancestors."""
    host.alembic("merge", "heads", "--message", "both")
    host.alembic("upgrade", "head")
    assert NEXT not in host.revisions()
    assert_store_opens(host)
    host.alembic("downgrade", FIRST)
    assert our_revision(host) == FIRST
    host.alembic("upgrade", "head")
    assert_store_opens(host)


def test_a_revision_of_the_hosts_may_depend_on_ours(host: Host) -> None:
    """Our tables exist when it runs, and our version is known afterwards."""
    name = "alembic/versions/second.py"
    host.change(name, "\n\n\ndef upgrade", f'\ndepends_on = "{NEXT}"\n\n\ndef upgrade')
    host.alembic("upgrade", HEAD)
    assert tables_of(host) == HOSTS | OURS
    assert_store_opens(host)
    host.alembic("downgrade", "host@base")
    assert_store_opens(host)
    host.alembic("downgrade", "workflow_store@base")
    assert our_revision(host) is None


def test_both_as_offline_sql(host: Host) -> None:
    """The printed SQL upgrades both, and writes both versions."""
    printed = host.alembic("upgrade", "heads", "--sql")
    execute_in(host, printed)
    assert host.revisions() == {HEAD, NEXT}
    assert_store_opens(host)
    assert "No new upgrade operations" in host.alembic("check")
    execute_in(host, host.alembic("downgrade", f"{NEXT}:{FIRST}", "--sql"))
    assert our_revision(host) == FIRST
    execute_in(host, host.alembic("stamp", f"{FIRST}:{NEXT}", "--sql"))
    assert NEXT in host.revisions()
    assert our_revision(host) == FIRST


def test_ours_are_in_the_schema_of_the_hosts_version_table(host_on_postgresql: Host) -> None:
    """Our revisions use no other schema."""
    host = host_on_postgresql
    host.configures(include_schemas=True, version_table_schema="app")
    host.ignores_tables_in("app")
    execute_in(host, "CREATE SCHEMA app")
    host.alembic("upgrade", "heads")
    assert tables_of(host) == {"accounts", "orders", "app.alembic_version"} | {
        f"app.{name}" for name in OURS
    }
    assert_store_opens(host, "app")
    host.alembic("downgrade", "workflow_store@base")
    assert our_revision(host, "app") is None


def test_apart_from_the_hosts_alembic(tmp_path: Path, empty_url: str, next_version: None) -> None:
    """Two commands and two version tables; neither changes what the other one created."""
    host = Host(tmp_path / "host", empty_url, diff="apart.diff")
    asyncio.run(migrate.upgrade(host.url))
    host.command("upgrade", "head")
    assert host.revisions() == {HEAD}
    assert "No new upgrade operations" in host.alembic("check")
    host.alembic("revision", "--autogenerate", "--message", "nothing")
    (written,) = (host.folder / "alembic" / "versions").glob("*_nothing.py")
    assert "op." not in written.read_text("utf-8")
    assert tables_of(host) == HOSTS | OURS
    assert_store_opens(host)
    host.alembic("downgrade", "base")
    assert_store_opens(host)


def test_ours_in_a_schema_apart_from_the_hosts_alembic(
    tmp_path: Path, empty_postgres_url: str, next_version: None
) -> None:
    """The filter of the host's autogenerate then names the schema."""
    host = Host(tmp_path / "host", empty_postgres_url, diff="apart.diff")
    host.configures(include_schemas=True)
    host.ignores_tables_in("workflows")
    asyncio.run(migrate.upgrade(host.url, schema="workflows"))
    host.alembic("upgrade", "head")
    assert "No new upgrade operations" in host.alembic("check")
    assert_store_opens(host, "workflows")
