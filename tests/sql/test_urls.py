"""Which store a URL opens, the environment, and what is refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from support.failures import PASSWORD, calls, run, step
from support.processes import orphans
from workflow_store import (
    InMemoryWorkflowStore,
    ResumableWorkflowStore,
    SqlWorkflowStore,
    StoreClosedError,
    StoreUnavailableError,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.testing import a_run, a_step


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and not after a pause."""
    monkeypatch.setattr("workflow_store.sql.retry._DELAYS_S", (0.0,))


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{PASSWORD}@host/db",
        f"mysql+aiomysql://me:{PASSWORD}@host/db",
        f"postgresql+psycopg2://me:{PASSWORD}@host/db",
        f"sqlite+pysqlite:///{PASSWORD}.db",
        f"postgresql://me:{PASSWORD}@host:port/db",
        f"postgresql:/me:{PASSWORD}@host/db",
        f"me:{PASSWORD}@host/db",
        f"memory://{PASSWORD}",
        f"host=localhost password={PASSWORD}",
        "oracle://",
        "://",
        "",
    ],
)
async def test_an_unsupported_url_is_refused_with_a_list_of_what_is_supported(url: str) -> None:
    with pytest.raises(ValueError, match="Supported") as caught:
        open_store(url)
    message = str(caught.value)
    assert "S3CR3T" not in message
    for supported in ("memory://", "sqlite:///", "postgresql://", "postgres://"):
        assert supported in message


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite+aiosqlite:///relative.db", "relative.db"),
        ("sqlite:///{folder}/absolute.db", "absolute.db"),
        ("sqlite+aiosqlite:///{folder}/absolute.db", "absolute.db"),
        ("sqlite:///with space & 100%.db", "with space & 100%.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite+aiosqlite://", None),
        ("memory://", None),
    ],
)
async def test_each_spelling_of_a_local_url_opens_its_store(
    url: str, file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the URL says, none for a store in memory."""
    monkeypatch.chdir(tmp_path)
    store = open_store(url.replace("{folder}", str(tmp_path)))
    assert type(store) is (InMemoryWorkflowStore if url == "memory://" else SqlWorkflowStore)
    assert files(tmp_path) == []
    async with store:
        await store.create_run(run())
        assert await store.get_run("r") is not None
    assert files(tmp_path) == ([] if file is None else [file])


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg"]
)
async def test_each_spelling_of_a_postgresql_url_opens_its_store(
    scheme: str, postgres_url: str
) -> None:
    url = scheme + "://" + postgres_url.split("://", 1)[1]
    store = open_store(url)
    assert type(store) is SqlWorkflowStore
    async with store:
        await store.create_run(run())
        assert await store.get_run("r") is not None
    assert await orphans(postgres_url) == []


async def test_without_a_url_a_file_in_the_current_folder_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store() as store:
        assert type(store) is SqlWorkflowStore
        await store.create_run(run())
    assert files(tmp_path) == ["workflow_store.db"]


async def test_without_a_url_the_environments_is_opened(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WORKFLOW_STORE_URL` comes before the default and after an argument."""
    monkeypatch.setenv("WORKFLOW_STORE_URL", database_url)
    async with open_store() as store, open_store(database_url) as same:
        await store.create_run(run())
        assert await same.get_run("r") is not None
        async with open_store(f"sqlite:///{tmp_path}/other.db") as other:
            assert await other.get_run("r") is None
    monkeypatch.setenv("WORKFLOW_STORE_URL", "memory://")
    assert type(open_store()) is InMemoryWorkflowStore


async def test_the_environments_schema_holds_the_tables_on_postgresql(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`WORKFLOW_STORE_SCHEMA` counts for migrations and stores; an argument comes before it."""
    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", 'Of "Flows"')
    await migrate.upgrade(empty_postgres_url)
    await migrate.upgrade(empty_postgres_url, schema="other")
    async with open_store(empty_postgres_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        for call in calls(store).values():
            await call()
        async with open_store(empty_postgres_url, schema="other") as other:
            assert await other.get_run("r") is None
        await store.delete_run("r")
    connection = await asyncpg.connect(empty_postgres_url)
    try:
        rows = await connection.fetch(
            "SELECT table_schema, count(*) FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') GROUP BY 1"
        )
    finally:
        await connection.close()
    assert {tuple(row) for row in rows} == {('Of "Flows"', 4), ("other", 4)}


async def test_the_environments_schema_has_no_effect_on_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_STORE_SCHEMA", "flows")
    async with open_store(sqlite_url) as store:
        await store.create_run(run())
        assert await store.get_run("r") is not None


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "postgresql://host/db"])
def test_an_unknown_option_is_refused_for_every_url(url: str) -> None:
    """A typo is an error also where no option has an effect."""
    with pytest.raises(ValueError, match="pool_sise"):
        open_store(url, pool_sise=5)  # type: ignore[call-arg] # what the test is about


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
    ],
)
async def test_each_spelling_of_a_database_in_memory_is_one(url: str) -> None:
    """It needs no write-ahead log, and keeps its runs on one connection."""
    async with open_store(url) as store:
        await store.create_run(a_run())
        await asyncio.gather(*(store.upsert_step("run", a_step(f"s{n}")) for n in range(5)))
        assert len(await store.list_steps("run")) == 5


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite://runs.db", "three slashes"),
        ("sqlite://folder/runs.db", "three slashes"),
        (f"sqlite://me:{PASSWORD}@/runs.db", "three slashes"),
        ("sqlite://:5/runs.db", "three slashes"),
        ("sqlite:///runs.db?mode=ro", "sqlite:///file:runs.db?mode=ro&uri=true"),
        ("sqlite:///runs.db?mode=ro&uri=true", "sqlite:///file:runs.db?mode=ro&uri=true"),
        ("sqlite:///file:runs.db?mode=ro", "uri=true"),
        ("sqlite:///file:runs.db?mode=ro&uri=no", "uri=true"),
        ("sqlite:///file:runs.db?mode=readonly&uri=true", "ro, rw, rwc, memory"),
        ("sqlite:///file:runs.db?mod=ro&uri=true", "cache, immutable, mode"),
        ("sqlite:///file:runs.db", "uri=true"),
        ("sqlite:///runs.db?timeout=5", "busy_timeout_s"),
        ("sqlite:///runs.db?isolation_level=IMMEDIATE", "is not a parameter"),
        ("postgresql://host/db?sslmode=none", "disable, allow"),
        ("postgresql://host/db?target_session_attrs=master", "read-write"),
        ("postgresql://host/db?ssl=require", "sslmode"),
        ("postgresql://host/db?connect_timeout=5", "connect_timeout_s"),
        ("postgresql://host/db?keepalives=1", "keepalives"),
    ],
)
def test_a_part_of_a_url_that_would_have_no_effect_is_refused_with_advice(
    url: str, advice: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)) as caught:
        open_store(url)
    assert type(caught.value) is ValueError
    assert "S3CR3T" not in str(caught.value)


MALFORMED = [
    "sqlite:///a?mode", "sqlite:///a?mode=", "sqlite:///a?uri=true&uri=true", "sqlite:///a%00b?x=1",
    "sqlite:///a\0b", "sqlite:///\ud800", "sqlite://[::1/a", "postgresql://host:0/db",
    "postgresql://host/db?sslmode=", "postgresql://host/db?user=a&user=b",
    f"postgresql://me:{PASSWORD}?b@host/db", f"postgresql://me:5432?{PASSWORD}@host/db",
    "postgresql://me:\ud800@host/db", "postgresql://me@ho\0st/db", "postgresql://me:a%00@host/db",
    "postgresql://[::1/db", "postgresql://host/db?application_name=%00",
]  # fmt: skip


@pytest.mark.parametrize("url", MALFORMED, ids=ascii)
def test_a_malformed_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        open_store(url)
    assert type(caught.value) is ValueError
    assert "S3CR3T" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://me@127.0.0.1:1/db?{}", "127.0.0.1:1"),
        ("postgresql://127.0.0.1:1/db?user=me&{}", "127.0.0.1:1"),
        ("postgresql://127.0.0.1:1?{}&user=me", "127.0.0.1:1"),
        ("postgresql://?host=127.0.0.1&port=1&user=me&{}", "127.0.0.1"),
        ("postgresql://me:other@127.0.0.1:1/db?{}", "127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("name", ["password", "sslpassword", "pass%77ord"])
@pytest.mark.parametrize("secret", [f"a@{PASSWORD}", f"{PASSWORD}@b", f"{PASSWORD}:@/{PASSWORD}"])
@pytest.mark.usefixtures("hasty")
async def test_a_password_in_a_parameter_is_masked_and_its_at_ends_no_host(
    url: str, host: str, name: str, secret: str
) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        await open_store(url.format(f"{name}={secret}")).open()
    message = str(caught.value)
    assert host in message
    assert "=***" in message
    assert "S3CR3T" not in message


@pytest.mark.parametrize("url", [None, ""])
def test_a_store_needs_a_url(url: str | None) -> None:
    """An environment variable that is not set must not open another database."""
    with pytest.raises(ValueError, match="Supported"):
        SqlWorkflowStore(url)  # type: ignore[arg-type]


async def test_the_options_of_a_check_are_validated(sqlite_url: str) -> None:
    await migrate.upgrade(sqlite_url)
    await migrate.check(sqlite_url, options={"connect_timeout_s": 1.0})
    with pytest.raises(ValueError, match="statement_timeout_s"):
        await migrate.check(sqlite_url, options={"statement_timeout": 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["never opened", "closed"])
async def test_a_store_that_is_not_open_says_so_before_it_looks_at_arguments(
    unopened_store: ResumableWorkflowStore, state: str
) -> None:
    store = unopened_store
    if state == "closed":
        async with store:
            pass
    for call in (
        store.create_run,
        store.get_run,
        store.delete_run,
        store.list_steps,
        store.load_run,
        store.find_waiting_step,
        store.renew_claim,
        store.release_claim,
    ):
        with pytest.raises(StoreClosedError):
            await call(object())  # type: ignore[arg-type]
    with pytest.raises(StoreClosedError):
        await store.purge_runs(created_before=None)  # type: ignore[arg-type]
    with pytest.raises(StoreClosedError):
        await store.list_runs(limit=0)
