"""OpenTelemetry providers get retries and pool usage; without one, nothing is recorded."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Meter

from support.canaries import CANARY, is_observed, with_password
from support.engines import engine_of_a_host, plain
from support.failures import locked, path_of, sessions, terminate
from support.otel import Listener
from support.otel import listening as listened
from support.waiting import PATIENCE_S, until
from workflow_store import SqlWorkflowStore, open_store
from workflow_store.sql.telemetry import spans
from workflow_store.testing import a_run, a_step

# -- retries and pools -----------------------------------------------------------------


async def test_a_retry_is_counted_and_noted_in_the_span_that_it_delays(
    postgres_url: str, listener: Listener
) -> None:
    """A write's in the span of its commit, a read's in that of the call."""
    async with open_store(postgres_url) as store:
        await store.create_run(a_run())

        async def waiting() -> bool:
            that = "wait_event_type = 'Lock'"
            return len(await sessions(postgres_url, that=that)) == 2

        async with locked(postgres_url) as locker:
            tasks = [
                asyncio.ensure_future(store.update_context("run", 1)),
                asyncio.ensure_future(store.get_run("run")),
            ]
            await until(waiting)
            await terminate(postgres_url, but=locker)
        await asyncio.gather(*tasks)
        points = listener.points("workflow_store.retries")
        assert sum(point.value for point in points) == 2
    retried = {
        span.name: [attributes_of_event(event) for event in span.events]
        for span in listener.spans
        if span.events
    }
    kinds = [{"error.type": point.attributes["error.type"]} for point in points]
    assert retried.keys() == {"workflow_store.commit", "workflow_store.get_run"}
    assert all(event in kinds for events in retried.values() for event in events)


def attributes_of_event(event: Any) -> dict[str, Any]:
    assert event.name == "workflow_store.retry"
    return dict(event.attributes)


def connections(listener: Listener) -> dict[str, int]:
    found = {
        point.attributes["db.client.connection.state"]: point.value
        for point in listener.points("db.client.connection.count")
    }
    for point in listener.points("db.client.connection.max"):
        found["max"] = point.value
    return found


async def test_the_use_of_the_pool_is_told_while_the_store_is_open(
    database_url: str, listener: Listener
) -> None:
    """Stores of one database, each with a pool of its own, are added up."""
    async with open_store(with_password(database_url), pool_size=3) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.get_run("run")
        assert connections(listener) == {"used": 0, "idle": 1, "max": 3}
        async with store.engine.connect(), store.engine.connect():
            assert connections(listener) == {"used": 2, "idle": 0, "max": 3}
            async with open_store(with_password(database_url), pool_size=4):
                assert connections(listener)["max"] == 7
        (point, _) = listener.points("db.client.connection.count")
        assert CANARY not in point.attributes["db.client.connection.pool.name"]
    assert connections(listener) == {}


async def test_a_callers_engine_is_told_of_once_however_many_stores_share_it(
    database_url: str, listener: Listener
) -> None:
    """How many connections it may have is its owner's to know."""
    async with (
        engine_of_a_host(database_url) as engine,
        SqlWorkflowStore(engine, migrate=True),
        SqlWorkflowStore(engine),
        engine.connect(),
    ):
        found = connections(listener)
        assert found["used"] == 1
        assert "max" not in found


# -- what a database is called -------------------------------------------------------------


async def test_a_database_is_named_without_its_user_and_password() -> None:
    """An @ in a password that is not encoded moves the rest of it into the host."""
    url = f"postgresql://user:p@{CANARY}@db.example:5433/app?password={CANARY}"
    engine = plain(url)
    assert spans._describe(engine, "ours") == {
        "db.system.name": "postgresql",
        "db.namespace": "app|ours",
        "server.address": "db.example",
        "server.port": 5433,
    }
    assert spans._describe(plain("sqlite://"), None) == {"db.system.name": "sqlite"}


# -- no provider ------------------------------------------------------------------------


async def test_without_a_provider_the_methods_are_the_classes_own(sqlite_url: str) -> None:
    """The OpenTelemetry API alone, which is imported here, is no provider."""
    async with open_store(sqlite_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        assert not is_observed(store)


@pytest.mark.parametrize("kind", ["trace", "metrics"])
async def test_one_provider_is_enough(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Spans without metrics, and metrics without spans."""
    listener = Listener()
    if kind == "trace":
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: listener.tracers)
    else:
        monkeypatch.setattr(metrics, "get_meter_provider", lambda: listener.meters)
    async with open_store(sqlite_url) as store:
        await store.create_run(a_run())
        await asyncio.gather(*(store.upsert_step("run", a_step(f"{n}")) for n in range(5)))
    assert bool(listener.spans) is (kind == "trace")
    assert bool(listener.points("db.client.operation.duration")) is (kind == "metrics")
    listener.close()


async def test_a_disabled_sdk_is_no_provider(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    listened(monkeypatch, Listener())
    async with open_store(sqlite_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        assert not is_observed(store)


async def test_each_opening_looks_for_a_provider_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed store reports nothing, nor does one that is opened again without a provider."""
    store = SqlWorkflowStore(sqlite_url)
    listener = Listener()
    with monkeypatch.context() as patched:
        listened(patched, listener)
        async with store:
            assert is_observed(store)
    assert not is_observed(store)
    async with store:
        assert not is_observed(store)
        await store.create_run(a_run())
    assert listener.spans == ()
    listener.close()


@pytest.mark.parametrize("missing", ["a name", "an argument"])
async def test_an_api_before_1_30_leaves_the_store_working_and_silent(
    sqlite_url: str,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    missing: str,
) -> None:
    """Opening logs one warning that names the version to install."""
    if missing == "a name":
        monkeypatch.setitem(sys.modules, "workflow_store.sql.telemetry.spans", None)
    else:

        def create_histogram(self: Meter, name: str, unit: str = "", description: str = "") -> None:
            """Have the signature of 1.29."""

        monkeypatch.setattr(Meter, "create_histogram", create_histogram)
    async with open_store(sqlite_url) as store:
        await store.create_run(a_run())
    assert listener.spans == ()
    (record,) = (record for record in caplog.records if record.name == "workflow_store.telemetry")
    assert record.levelname == "WARNING"
    assert "1.30" in record.getMessage()


QUIET = """
import asyncio, json, sys
if sys.argv[2] == "blocked":
    sys.modules["opentelemetry"] = None
from workflow_store import open_store
from workflow_store.testing import a_run

async def main():
    async with open_store(sys.argv[1]) as store:
        await store.create_run(a_run())
        assert await store.get_run("run") is not None

asyncio.run(main())
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry.")]))
"""


@pytest.mark.parametrize("api", ["installed", "blocked"])
def test_a_program_without_opentelemetry_never_imports_it(sqlite_url: str, api: str) -> None:
    """Neither where the package is installed, nor where it is not."""
    command = [sys.executable, "-W", "error", "-c", QUIET, sqlite_url, api]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []
    assert path_of(sqlite_url).exists()
