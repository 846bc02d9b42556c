"""Each command on a database that is empty, old, newer, missing, locked, corrupt or elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import make_url

from support.commands import PASSWORD, Ended, command, misused, refused
from support.databases import on_server
from support.failures import path_of
from support.next_version import FIRST, NEXT
from support.samples import DAY, filled, snapshot, step
from support.schema import contents, set_revision
from workflow_store.archive import to_line
from workflow_store.sql import migrate
from workflow_store.sql.dialects import options
from workflow_store.sql.models import REVISION

LINE = f"{to_line(snapshot('r', step('s')))}\n"

Commands: TypeAlias = dict[str, list[str]]

READS: Commands = {
    "runs list": ["runs", "list"],
    "runs show": ["runs", "show", "r"],
    "runs show --html": ["runs", "show", "r", "--html", "-"],
    "export": ["export", "r"],
    "export --all": ["export", "--all"],
    "runs purge --dry-run": ["runs", "purge", "--created-before", "1d", "--dry-run"],
}
WRITES: Commands = {
    "runs delete": ["runs", "delete", "r", "--yes"],
    "runs purge": ["runs", "purge", "--created-before", "1d", "--yes"],
}
SCHEMA: Commands = {
    "check": ["check"],
    "check --json": ["check", "--json"],
    "current": ["current"],
    "downgrade": ["downgrade", FIRST, "--yes"],
}
OF_RUNS: Commands = {**READS, **WRITES}
ALL: Commands = {**OF_RUNS, **SCHEMA, "doctor": ["doctor"], "doctor --json": ["doctor", "--json"]}
MAKES: Commands = {"migrate": ["migrate"], "import": ["import"]}
EACH: Commands = {**ALL, **MAKES}


def on(url: str, words: list[str]) -> Ended:
    return command(*words, "--url", url, stdin=LINE)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Wait for locks for a moment. What is to succeed stays outside: a busy machine is slower."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("busy_timeout_s", "statement_timeout_s"):
            patch.setitem(options._DEFAULTS, name, 0.1)
        for function in (migrate.upgrade, migrate.downgrade):
            defaults: dict[str, object] = function.__kwdefaults__ or {}
            patch.setitem(defaults, "lock_timeout_s", 0.1)
        yield


# -- empty -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_database_without_our_tables_is_told_how_to_get_them(empty_url: str, name: str) -> None:
    """Nothing is made in it by a command that looks or deletes."""
    if empty_url.startswith("sqlite"):
        path_of(empty_url).touch()
    refused(on(empty_url, ALL[name]), 1, "has no workflow-store tables", "workflow-store migrate")
    if empty_url.startswith("sqlite"):
        assert path_of(empty_url).read_bytes() == b""


def test_an_empty_database_is_at_no_revision(empty_url: str) -> None:
    """That is an answer; to be ready is another question."""
    if empty_url.startswith("sqlite"):
        path_of(empty_url).touch()
    assert on(empty_url, ["current"]) == (0, "none\n", "")
    refused(on(empty_url, ["check"]), 1, "has no workflow-store tables")
    unready = on(empty_url, ["check", "--json"])
    assert (unready.code, unready.out) == (
        1,
        f'{{"ok": false, "revision": null, "needed": "{REVISION}"}}\n',
    )
    assert on(empty_url, ["doctor"]).code == 1
    back = on(empty_url, ["downgrade", "base", "--yes"])
    assert (back.code, back.out) == (0, "")
    if empty_url.startswith("postgresql"):
        refused(on(empty_url, ["import"]), 1, "workflow-store migrate")
    assert on(empty_url, ["migrate"]).code == 0
    assert on(empty_url, ["import"]).code == 0
    assert on(empty_url, ["runs", "show", "r"]).code == 0


# -- old and newer ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a file at a revision before the newest."""
    url = f"sqlite:///{tmp_path_factory.mktemp('old')}/old.db"
    asyncio.run(migrate.upgrade(url, FIRST))
    return url


@pytest.fixture(scope="module")
def newer_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a file at a revision that is not known yet."""
    url = filled(f"sqlite:///{tmp_path_factory.mktemp('newer')}/newer.db")
    asyncio.run(set_revision(url, "9999"))
    return url


@pytest.mark.usefixtures("next_version")
@pytest.mark.parametrize("name", OF_RUNS)
def test_an_old_database_is_told_how_to_go_on(old_url: str, name: str) -> None:
    """It is not migrated by the way."""
    refused(on(old_url, ALL[name]), 1, FIRST, NEXT, "workflow-store migrate")
    assert asyncio.run(migrate.current(old_url)) == FIRST


@pytest.mark.parametrize("name", [*OF_RUNS, *MAKES])
def test_a_newer_database_is_left_alone(newer_url: str, name: str) -> None:
    """The message says that it is newer, and what to install."""
    before = asyncio.run(contents(newer_url))
    refused(on(newer_url, EACH[name]), 1, "9999", "newer than this version")
    assert asyncio.run(contents(newer_url)) == before


@pytest.mark.usefixtures("next_version")
def test_postgresql_says_the_same_of_its_revision(empty_postgres_url: str) -> None:
    """Nothing is migrated there by the way, not even by an import."""
    asyncio.run(migrate.upgrade(empty_postgres_url, FIRST))
    for words in (["runs", "list"], ["import"], ["export", "--all"]):
        refused(on(empty_postgres_url, words), 1, FIRST, NEXT, "workflow-store migrate")
    asyncio.run(set_revision(empty_postgres_url, "9999"))
    for words in (["runs", "list"], ["import"], ["migrate"]):
        refused(on(empty_postgres_url, words), 1, "9999", "newer than this version")
    assert on(empty_postgres_url, ["doctor"]).code == 1


# -- missing ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path: Path, name: str) -> None:
    """A typo in a path makes no database."""
    url = f"sqlite:///{tmp_path}/tpyo.db"
    refused(on(url, ALL[name]), 3, "tpyo.db does not exist", "workflow-store migrate")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", ["check", "doctor", "runs list", "migrate"])
def test_a_folder_is_no_database(tmp_path: Path, name: str) -> None:
    """It cannot be opened, and that is one message."""
    refused(on(f"sqlite:///{tmp_path}", EACH[name]), 3, "SQLITE_CANTOPEN")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", MAKES)
def test_what_makes_a_file_makes_no_folder(tmp_path: Path, name: str) -> None:
    """It makes the file alone, and says where it cannot."""
    refused(on(f"sqlite:///{tmp_path}/no/x.db", MAKES[name]), 3, "no/x.db", "folder")
    assert files(tmp_path) == set()
    assert on(f"sqlite:///{tmp_path}/x.db", MAKES[name]).code == 0
    assert "x.db" in files(tmp_path)


# -- locked ----------------------------------------------------------------------------


@contextlib.contextmanager
def written_to(url: str) -> Iterator[None]:
    """Let another program write for longer than anyone waits."""
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


@contextlib.contextmanager
def exclusively(url: str) -> Iterator[None]:
    """Let another program keep everybody out."""
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM claims")
        yield
        other.rollback()


def test_reads_go_on_beside_a_writer_and_writes_are_told_to_wait(sqlite_url: str) -> None:
    """A lock that stays taken is a database that cannot be reached now."""
    filled(sqlite_url, snapshot("r", step("s", status="completed"), created_at=DAY))
    with written_to(sqlite_url):
        for words in READS.values():
            assert on(sqlite_url, words).code == 0
        assert on(sqlite_url, ["doctor"]).code == 0
        with impatient():
            for words in [*WRITES.values(), SCHEMA["downgrade"]]:
                refused(on(sqlite_url, words), 3, "SQLITE_BUSY", "Another process has held")
            changed = to_line(snapshot("another"))
            busy = command("import", "--url", sqlite_url, stdin=changed)
            refused(busy, 3, "SQLITE_BUSY")
    assert on(sqlite_url, WRITES["runs purge"]).code == 0


def test_a_file_that_another_program_keeps_for_itself_cannot_be_reached(sqlite_url: str) -> None:
    """By any command."""
    filled(sqlite_url, snapshot("r"))
    with exclusively(sqlite_url), impatient():
        for words in [*ALL.values(), *MAKES.values()]:
            refused(on(sqlite_url, words), 3, "SQLITE_BUSY")
        refused(command("copy", sqlite_url, "sqlite:///x.db"), 3, "SQLITE_BUSY")


def test_a_table_that_stays_locked_cannot_be_reached(postgres_url: str) -> None:
    """As while another session alters it."""
    import asyncpg

    filled(postgres_url, snapshot("r"))

    async def locked() -> list[Ended]:
        session = await asyncpg.connect(postgres_url)
        try:
            async with session.transaction():
                await session.execute("LOCK TABLE runs, steps")
                asked = [*READS.values(), *WRITES.values()]
                return [await asyncio.to_thread(on, postgres_url, words) for words in asked[::3]]
        finally:
            await session.close()

    with impatient():
        outcomes = asyncio.run(locked())
    for ended in outcomes:
        refused(ended, 3, "is not available")


# -- corrupt ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OF_RUNS, *SCHEMA, *MAKES])
def test_a_file_that_is_no_database_is_told(sqlite_url: str, name: str) -> None:
    """It is left as it is."""
    text = b"This is a letter to my grandmother. " * 100
    path_of(sqlite_url).write_bytes(text)
    refused(on(sqlite_url, EACH[name]), 1, "SQLITE_NOTADB", "check the URL")
    assert path_of(sqlite_url).read_bytes() == text


def test_a_damaged_file_is_told(sqlite_url: str) -> None:
    """What can be told still is; what cannot is named, with what to do."""
    filled(sqlite_url, *(snapshot(f"r{n}", input={"text": "x" * 3000}) for n in range(50)))
    with contextlib.closing(sqlite3.connect(path_of(sqlite_url))) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = database.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'runs'"
        ).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with path_of(sqlite_url).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xaa" * size)
    refused(on(sqlite_url, ["runs", "show", "r7"]), 1, "SQLITE_CORRUPT", "restore it from a backup")
    exported = on(sqlite_url, ["export", "--all"])
    assert exported.code == 1
    assert "SQLITE_CORRUPT" in exported.err
    examined = on(sqlite_url, ["doctor"])
    assert examined.code == 1
    assert examined.out


def test_a_value_that_no_store_wrote_is_told(sqlite_url: str) -> None:
    """It is neither skipped nor guessed, and not quoted."""
    filled(sqlite_url, snapshot("r", step("s")), snapshot("s"))
    with contextlib.closing(sqlite3.connect(path_of(sqlite_url))) as database:
        database.execute(f"UPDATE runs SET context = '{PASSWORD}' WHERE run_task_id = 'r'")
        database.commit()
    refused(on(sqlite_url, ["runs", "show", "r"]), 1, "'r'")
    refused(on(sqlite_url, ["export", "r"]), 1, "'r'")
    refused(command("copy", sqlite_url, "sqlite:///"), 2, "is lost when this command exits")


# -- elsewhere -------------------------------------------------------------------------

UNREACHABLE = {
    "port": f"postgresql://user:{PASSWORD}@127.0.0.1:1/name",
    "socket": f"postgresql://user:{PASSWORD}@/name?host=/no/such/folder",
    "host": f"postgresql://user@no-such-host.invalid/name?password={PASSWORD}",
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and not after a pause."""
    monkeypatch.setattr("workflow_store.sql.retry._DELAYS_S", (0.0,))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", EACH)
def test_a_server_that_cannot_be_reached_is_told_without_the_password(name: str) -> None:
    """By each command, wherever the password stands in the URL."""
    url = UNREACHABLE["host" if name == "check" else "socket" if name == "current" else "port"]
    refused(on(url, EACH[name]), 3, "is not available")


@pytest.mark.usefixtures("hasty")
def test_a_copy_names_the_side_that_cannot_be_reached(sqlite_url: str, tmp_path: Path) -> None:
    """Without its password; no file is made for a source that is not there."""
    other = f"sqlite:///{tmp_path}/other.db"
    refused(command("copy", UNREACHABLE["port"], other), 3, "user:***@127.0.0.1:1")
    assert files(tmp_path) == set()
    filled(sqlite_url)
    refused(command("copy", sqlite_url, UNREACHABLE["port"]), 3, "user:***@127.0.0.1:1")


def changed(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


def test_a_database_or_a_user_that_is_not_there_is_told(postgres_url: str) -> None:
    """The server can be reached, and says no."""
    database = changed(postgres_url, database="no_such", password=PASSWORD)
    refused(on(database, ["runs", "list"]), 3, "3D000", "The database does not exist")
    user = changed(postgres_url, username="no_such", password=PASSWORD)
    refused(on(user, ["runs", "list"]), 3, "28", "Check the user and the password")


def test_a_role_that_lacks_a_right_is_told(postgres_url: str) -> None:
    """It is a no of the database, and not out of reach."""
    role = f"looks_at_{make_url(postgres_url).database}"
    create = f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"
    grant = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    asyncio.run(on_server(postgres_url, f"{create}; {grant}"))
    try:
        filled(postgres_url, snapshot("r"))
        url = changed(postgres_url, username=role, password=PASSWORD)
        assert on(url, ["runs", "list"]).code == 0
        refused(on(url, ["runs", "delete", "r", "--yes"]), 1, "42501", "lacks a privilege")
    finally:
        asyncio.run(on_server(postgres_url, f"DROP OWNED BY {role}; DROP ROLE {role}"))


# -- no database at all ----------------------------------------------------------------

NOT_A_DATABASE = {
    "mysql": f"mysql://user:{PASSWORD}@host/name",
    "text": f"user:{PASSWORD}@host",
    "port": f"postgresql://user:{PASSWORD}@host:port/name",
    "path": "store.db",
}
GONE = [
    "memory://", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+aiosqlite:///",
    "sqlite:///file::memory:?cache=shared&uri=true", "sqlite:///file:x?mode=memory&uri=true",
    "sqlite:///file:/x?vfs=memdb&uri=true",
]  # fmt: skip
if make_url("sqlite:///x%3Fy").database == "x?y":  # for SQLAlchemy 2.0, it is the name of a file
    GONE.append("sqlite:///file:x%3Fmode=memory?uri=true")


@pytest.mark.parametrize("name", EACH)
def test_what_is_no_url_of_a_database_is_wrong_usage(name: str) -> None:
    """The message lists what is supported, and quotes nothing that may be a password."""
    for url in NOT_A_DATABASE.values():
        misused(on(url, EACH[name]), "sqlite:///file.db")


@pytest.mark.parametrize("name", EACH)
def test_a_database_in_memory_is_wrong_usage(name: str) -> None:
    """There is nothing in it when the command begins, and nothing is left when it ends."""
    for url in GONE:
        misused(on(url, EACH[name]), "is lost when this command exits")


def test_neither_side_of_a_copy_may_be_in_memory(sqlite_url: str) -> None:
    """What is copied there would be gone."""
    filled(sqlite_url)
    for url in GONE:
        misused(command("copy", sqlite_url, url), "is lost when this command exits")
        misused(command("copy", url, sqlite_url), "is lost when this command exits")
    for url in NOT_A_DATABASE.values():
        misused(command("copy", sqlite_url, url), "sqlite:///file.db")
        misused(command("copy", url, sqlite_url), "sqlite:///file.db")
