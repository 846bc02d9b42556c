"""The commands `migrate`, `check`, `current` and `downgrade`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from support.commands import PASSWORD, command, misused, refused
from support.next_version import FIRST, NEXT
from support.samples import filled, lines_of, newest_first, snapshot, step
from support.schema import ODD_SCHEMA, OURS, contents, execute, set_revision, tables
from workflow_store.sql import migrate

pytestmark = pytest.mark.usefixtures("next_version")  # so that there is an older revision

NOBODY = f"postgresql://user:{PASSWORD}@no-such-host.invalid/nothing"


def test_a_database_goes_up_and_down_and_each_command_says_so(empty_url: str) -> None:
    """Exit codes, data on standard output and messages on standard error."""
    at = ("--url", empty_url)
    if empty_url.startswith("postgresql"):
        assert command("current", *at).out == "none\n"
        refused(command("check", *at), 1, "has no workflow-store tables", "workflow-store migrate")

    up = command("migrate", *at)
    assert (up.code, up.out) == (0, "")
    assert up.err.startswith("Created the tables in ")
    assert up.err.endswith(f" at revision {NEXT}.\n")
    again = command("migrate", *at)
    assert again.code == 0
    assert "nothing was changed" in again.err
    assert command("current", *at) == (0, f"{NEXT} (head)\n", "")
    ready = command("check", *at)
    assert (ready.code, ready.out) == (0, "")
    assert NEXT in ready.err

    back = command("downgrade", FIRST, "--yes", *at)
    assert (back.code, back.out) == (0, "")
    assert f"was migrated from revision {NEXT} to {FIRST}." in back.err
    assert command("current", *at) == (0, f"{FIRST}\n", "")
    refused(command("check", *at), 1, FIRST, NEXT, "workflow-store migrate")

    base = command("downgrade", "base", "--yes", *at)
    assert (base.code, base.out) == (0, "")
    assert base.err.startswith("Dropped the tables in ")
    again = command("downgrade", "base", "--yes", *at)
    assert again.err.endswith(" has no tables; nothing was changed.\n")
    assert command("migrate", "--to", FIRST, *at).code == 0
    assert command("current", *at).out == f"{FIRST}\n"
    assert command("migrate", *at).code == 0
    assert command("check", *at).code == 0


def test_the_json_of_each_is_stable(empty_url: str) -> None:
    """These keys and no others."""
    at = ("--json", "--url", empty_url)
    asyncio.run(migrate.upgrade(empty_url))
    assert json.loads(command("current", *at).out) == {"revision": NEXT, "head": NEXT}
    ready = {"ok": True, "revision": NEXT, "needed": NEXT}
    assert json.loads(command("check", *at).out) == ready

    for revision in (FIRST, "9999"):
        asyncio.run(set_revision(empty_url, revision))
        found = command("check", *at)
        assert found.code == 1
        assert json.loads(found.out) == {"ok": False, "revision": revision, "needed": NEXT}
        assert len(found.err.splitlines()) == 1
        found = command("current", *at)
        assert json.loads(found.out) == {"revision": revision, "head": NEXT}


def test_a_newer_database_says_what_to_install(empty_url: str) -> None:
    """No command changes it."""
    at = ("--url", empty_url)
    asyncio.run(migrate.upgrade(empty_url))
    asyncio.run(set_revision(empty_url, "9999"))
    before = asyncio.run(contents(empty_url))
    refused(command("check", *at), 1, "9999", "newer than this version")
    refused(command("migrate", *at), 1, "9999", "newer than this version")
    refused(command("downgrade", FIRST, "--yes", *at), 1, "9999", "newer than this version")
    assert asyncio.run(contents(empty_url)) == before


def test_a_downgrade_keeps_the_runs_and_base_drops_them(empty_url: str) -> None:
    """Runs go through revisions that know less; without --yes nothing happens."""
    at = ("--url", empty_url)
    assert command("migrate", *at).code == 0
    filled(empty_url, snapshot("r", step("s", result=[1.0])))
    before = lines_of(empty_url)
    refused(command("downgrade", "base", *at), 2, "drops every run in", "Pass --yes")
    assert command("downgrade", FIRST, "--yes", *at).code == 0
    assert command("migrate", *at).code == 0
    assert lines_of(empty_url) == before
    assert command("downgrade", "base", "--yes", *at).code == 0
    assert not asyncio.run(tables(empty_url)) & {"runs", "steps", "claims"}


@pytest.mark.parametrize("revision", ["n0pe", f"{FIRST}:head", "", "\x1b[2J", "head", "9999"])
def test_a_revision_that_is_not_there_is_named(sqlite_url: str, revision: str) -> None:
    """It is wrong usage; nothing is changed."""
    at = ("--url", sqlite_url)
    asyncio.run(migrate.upgrade(sqlite_url, FIRST))
    if revision != "head":
        refused(command("migrate", "--to", revision, *at), 2, "revision")
    refused(command("downgrade", "--yes", *at, "--", revision), 2, "revision")
    assert command("current", *at).out == f"{FIRST}\n"


@pytest.mark.parametrize(
    "revision",
    [f"{FIRST}-1", f"{NEXT}-2", "-2", "-1", "ws_000", "heads", "base+1", "workflow_store@base"],
)
def test_a_downgrade_takes_no_revision_that_must_be_worked_out(
    sqlite_url: str, revision: str
) -> None:
    """Such a way may lead to base, and the question would not say that all runs are dropped."""
    filled(sqlite_url, snapshot("r"))
    for yes in ((), ("--yes",)):
        ended = command("downgrade", *yes, "--url", sqlite_url, "--", revision)
        refused(ended, 2, f"revision {revision!r}", f"{FIRST}, {NEXT}, head, base")
    assert lines_of(sqlite_url) == newest_first(snapshot("r"))


def test_sql_is_printed_without_a_database_and_can_be_applied(empty_url: str) -> None:
    """The SQL is all that is on standard output."""
    nobody = "sqlite:////no/such/folder/n.db" if empty_url.startswith("sqlite") else NOBODY
    printed = command("migrate", "--sql", "--url", nobody)
    assert (printed.code, printed.err) == (0, "")
    asyncio.run(execute(empty_url, printed.out))
    assert command("check", "--url", empty_url).code == 0
    some = command("migrate", "--sql", "--to", f"{FIRST}:{NEXT}", "--url", nobody)
    assert "CREATE INDEX" in some.out
    assert "CREATE TABLE runs" not in some.out
    misused(
        command("migrate", "--sql", "--to", f"{FIRST}:n0pe", "--url", nobody), f"'{FIRST}:n0pe'"
    )


def test_the_schema_is_an_option_of_each(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that needs quotes, from the option or the environment."""
    inside = ("--schema", ODD_SCHEMA, "--url", empty_postgres_url)
    assert command("current", *inside).out == "none\n"
    missing = command("check", *inside)
    refused(missing, 1, f"workflow-store migrate --schema '{ODD_SCHEMA}'")
    assert command("migrate", *inside).code == 0
    assert asyncio.run(tables(empty_postgres_url)) == {f"{ODD_SCHEMA}.{name}" for name in OURS}
    assert command("check", *inside).code == 0
    assert command("runs", "list", *inside).out == "No runs.\n"
    assert ODD_SCHEMA in command("migrate", "--sql", *inside).out
    assert command("current", "--url", empty_postgres_url).out == "none\n"

    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", ODD_SCHEMA)
    monkeypatch.setenv("WORKFLOW_STORE_URL", empty_postgres_url)
    assert command("current").out == f"{NEXT} (head)\n"
    assert command("doctor").code == 0
    assert command("downgrade", "base", "--yes").code == 0


def test_the_url_is_that_of_the_option_else_of_the_environment_else_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `open_store`."""
    monkeypatch.chdir(tmp_path)
    refused(command("check"), 3, "sqlite:///workflow_store.db does not exist")
    assert command("migrate").code == 0
    assert (tmp_path / "workflow_store.db").exists()
    monkeypatch.setenv("WORKFLOW_STORE_URL", "sqlite:///environment.db")
    refused(command("current"), 3, "sqlite:///environment.db does not exist")
    assert command("current", "--url", "sqlite:///workflow_store.db").code == 0
