"""Log lines of the logger `workflow_store`: few, and without secrets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from support.canaries import CANARY, all_at_once, call_everything, fail_everywhere, with_password
from support.cancellation import settled
from support.failures import PASSWORD, cancel_waiting, locked, refusing, sessions, terminate
from support.next_version import FIRST, NEXT
from support.waiting import PATIENCE_S, until
from workflow_store import (
    ClaimLostError,
    SqlWorkflowStore,
    StoreUnavailableError,
    WorkflowStore,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.sql.models import REVISION
from workflow_store.testing import a_run, a_step

LATER = timedelta(days=1)


@pytest.fixture(autouse=True)
def _everything_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="workflow_store")


def said(caplog: pytest.LogCaptureFixture, by: str = "") -> list[tuple[str, str]]:
    """Return the level and the text of each log line, of one logger or of all."""
    name = f"workflow_store.{by}"
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name.startswith(name)
    ]


def masked(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


# -- each line -------------------------------------------------------------------------


async def test_opening_migrating_and_closing_are_said_once(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the database, and the revisions before and after."""
    store = SqlWorkflowStore(empty_url, migrate=True)
    for _ in range(2):
        async with store:
            await store.open()
        await store.close()
    where = masked(empty_url)
    assert said(caplog) == [
        ("INFO", f"{where}: created the tables at revision {REVISION}"),
        ("INFO", f"{where}: opened"),
        ("INFO", f"{where}: closed"),
        ("INFO", f"{where}: opened"),
        ("INFO", f"{where}: closed"),
    ]


@pytest.mark.usefixtures("next_version")
async def test_a_downgrade_is_said_and_a_migration_that_changes_nothing_is_not(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate.upgrade(empty_url)
    caplog.clear()
    await migrate.upgrade(empty_url)
    assert said(caplog) == []
    await migrate.downgrade(empty_url, FIRST)
    await migrate.downgrade(empty_url, "base")
    assert [text.rpartition(": ")[2] for _, text in said(caplog)] == [
        f"migrated from revision {NEXT} to {FIRST}",
        "dropped the tables",
    ]


async def test_what_goes_well_is_not_said(
    store: WorkflowStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither calls nor commits, at any level."""
    caplog.clear()
    await store.create_run(a_run())
    await asyncio.gather(*(store.upsert_step("run", a_step(f"{n}")) for n in range(20)))
    await store.list_steps("run")
    await store.delete_run("run")
    assert said(caplog) == []


async def test_a_retry_is_a_warning_that_names_the_kind_of_failure(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for an outage, however many calls it hits; the others are logged at DEBUG."""
    async with open_store(postgres_url) as store:
        await store.create_run(a_run())
        caplog.clear()

        async def waiting() -> bool:
            return len(await sessions(postgres_url, that="wait_event_type = 'Lock'")) == 5

        async with locked(postgres_url) as locker:
            reads = [asyncio.ensure_future(store.get_run("run")) for _ in range(5)]
            await until(waiting)
            await terminate(postgres_url, but=locker)
        await asyncio.gather(*reads)
        lines = said(caplog, "retry")
    assert len(lines) == 5
    kinds = {text.partition("(")[2].partition(")")[0] for _, text in lines}
    warnings = [text for level, text in lines if level == "WARNING"]
    assert len(warnings) == len(kinds)
    assert {level for level, _ in lines} == {"WARNING", "DEBUG"}
    assert warnings[0].startswith(f"{masked(postgres_url)}: attempt 1 of 4 failed (")
    assert " s" in warnings[0].partition("retrying in 0.")[2]


async def test_retries_of_an_opening_are_said_too(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is not there yet, as when all is started together."""
    url = f"postgresql://user:{PASSWORD}@127.0.0.1:1/app"
    with pytest.raises(StoreUnavailableError):
        await SqlWorkflowStore(url).open()
    lines = said(caplog)
    assert len(lines) == 3, "the last failure is the caller's error"
    assert lines[0][0] == "WARNING"
    assert "postgresql://user:***@127.0.0.1:1/app: attempt 1 of 4" in lines[0][1]


async def test_a_batch_that_is_refused_is_a_warning(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The row that is at fault fails alone, by its caller's error."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        caplog.clear()
        async with refusing(database_url):
            # The first goes out alone, and the others wait for it.
            names = ("first", "a", "refused", "b")
            await all_at_once(*(lambda n=n: store.upsert_step("run", a_step(n)) for n in names))
        ((level, text),) = said(caplog)
    assert level == "WARNING"
    assert " writes was rejected, writing them one by one: " in text
    assert masked(database_url) in text


async def test_a_failure_that_no_caller_hears_of_is_a_warning(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled call's write continues in the background, where no caller awaits it."""
    async with open_store(postgres_url) as store:
        await store.create_run(a_run())

        async def waiting() -> bool:
            return bool(await sessions(postgres_url, that="wait_event_type = 'Lock'"))

        async with locked(postgres_url):
            writing = asyncio.ensure_future(store.upsert_step("run", a_step()))
            await until(waiting)
            writing.cancel()
            await asyncio.wait([writing])
            caplog.clear()
            await cancel_waiting(postgres_url)
            await until(lambda: bool(said(caplog)))
    level, text = said(caplog, "commit")[0]
    assert level == "WARNING"
    assert text.startswith("1 of 1 writes failed after their callers were cancelled: ")
    assert "57014" in text


async def test_a_purge_says_what_it_deleted(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it is stopped half-way."""
    async with open_store(database_url) as store:
        await asyncio.gather(*(store.create_run(a_run(f"{n}")) for n in range(5)))
        caplog.clear()
        before = datetime.now(UTC) + LATER
        purging = asyncio.ensure_future(store.purge_runs(created_before=before, batch_size=1))

        async def one_is_gone() -> bool:
            return len((await store.list_runs()).runs) < 5

        await until(one_is_gone)
        purging.cancel()
        await asyncio.wait([purging])
        await settled(store)
        left = len((await store.list_runs()).runs)
        deleted = await store.purge_runs(created_before=before)
        assert deleted == left
        stopped, finished = (line for line in said(caplog) if " purge " in line[1])
    assert stopped[0] == finished[0] == "INFO"
    assert stopped[1].startswith("a purge deleted ")
    assert finished[1] == f"a purge deleted {deleted} runs created before {before.isoformat()}"


async def test_who_lost_a_claim_and_who_took_over_is_said(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By a write, by a renewal, and by the claim of the abandoned run."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        claim = await store.claim_run("run", owner="first", lease_s=0.001)
        assert claim is not None
        await asyncio.sleep(0.01)
        caplog.clear()
        assert len(await store.claim_abandoned_runs(owner="second")) == 1
        with pytest.raises(ClaimLostError):
            await store.fenced(claim).upsert_step("run", a_step())
        with pytest.raises(ClaimLostError):
            await store.renew_claim(claim)
        lost = (
            "INFO",
            f"'first' lost claim {claim.token} on run 'run': the run was claimed again, released "
            "or deleted",
        )
        assert said(caplog) == [
            ("INFO", "'second' took over abandoned run 'run'"), lost, lost,
        ]  # fmt: skip


# -- what is never said --------------------------------------------------------------------


async def test_no_payload_and_no_password_is_said(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By no line at any level, whether calls succeed or fail, nor by what a line carries."""
    async with open_store(with_password(database_url)) as store:
        await call_everything(store)
        await fail_everywhere(store)
        async with refusing(database_url):
            names = ("first", "refused", "taken")
            await all_at_once(
                *(lambda n=n: store.upsert_step("claimed", a_step(n, result=CANARY)) for n in names)
            )
    secret = f"postgresql://user:p@{PASSWORD}@127.0.0.1:1/app?password={PASSWORD}"
    with pytest.raises(StoreUnavailableError):
        await SqlWorkflowStore(secret).open()
    assert {level for level, _ in said(caplog)} == {"DEBUG", "INFO", "WARNING"}
    for record in caplog.records:
        if record.name.startswith("workflow_store"):
            assert record.exc_info is None
            assert CANARY not in logging.Formatter().format(record) + repr(vars(record))


@pytest.mark.slow
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
    )
)
async def test_an_id_is_one_line_of_plain_text(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Its characters never begin a line or control a terminal."""
    caplog.clear()
    async with open_store(sqlite_url) as store:
        await store.create_run(a_run(name))
        claim = await store.claim_run(name, owner=name)
        assert claim is not None
        await store.release_claim(claim)
        with pytest.raises(ClaimLostError):
            await store.renew_claim(claim)
        ((_, text),) = said(caplog, "claims")
    assert text.isprintable()
    assert repr(name) in text


# -- how it is switched on ---------------------------------------------------------------

UNCONFIGURED = """
import asyncio
from workflow_store import StoreUnavailableError, open_store

async def main():
    try:
        await open_store("postgresql://user:password@127.0.0.1:1/app").open()
    except StoreUnavailableError:
        print("unavailable")

asyncio.run(main())
"""


def test_a_program_that_configures_no_logging_gets_no_line() -> None:
    """Nor Python's own fallback to stderr."""
    command = [sys.executable, "-W", "error", "-c", UNCONFIGURED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "unavailable\n", "")
