"""The examples of `make demo`, run as users run them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from support import ROOT
from workflow_store import ClaimLostError, InMemoryWorkflowStore, RunClaim, StoreUnavailableError
from workflow_store.testing import a_run

pytestmark = pytest.mark.slow

DEFINITION = json.loads((ROOT / "examples/workflows/stdlib_report.json").read_text())
STEP_IDS = [step["id"] for step in DEFINITION["steps"]]


def run_demo(folder: Path, *arguments: str, example: str = "resume_after_crash.py") -> list[str]:
    """Run an example, which must succeed and leave no file; return its output."""
    # Traced for coverage, the work of the steps takes three times as long.
    untraced = {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example, *arguments],
        env={**untraced, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert list(folder.iterdir()) == []
    return done.stdout.splitlines()


def check_story(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Check the output that any kill leaves the same; return the outcome of each step."""
    text = "\n".join(lines)
    assert re.search(r"Process \d+ started the run and was killed with SIGKILL\.\n", text)
    assert re.search(r"Process \d+ resumed the run and ended with exit code 0\.\n", text)
    assert "Step choose asked for input and received {'packages': 8}." in lines
    assert "ok      0 steps repeated" in lines
    assert "ok      report identical to the run without a crash" in lines
    assert "FAILED" not in text

    rows = (re.fullmatch(r"(\S+) +(\w+) +(skipped|answered|ran|ran again)", s) for s in lines)
    steps = {row[1]: (row[2], row[3]) for row in rows if row}
    assert list(steps) == STEP_IDS
    for status, then in steps.values():
        assert (status == "completed") == (then == "skipped")
    return steps


def test_sqlite(tmp_path: Path) -> None:
    """Killed half-way while steps are running, the run is resumed from a SQLite file."""
    lines = run_demo(tmp_path)
    steps = check_story(lines)
    completed = [status for status, _ in steps.values()].count("completed")
    again = [then for _, then in steps.values()].count("ran again")
    assert 9 <= completed < len(STEP_IDS)
    assert again > 0
    assert f"Steps completed before the kill: {completed}" in lines
    assert f"Steps running at the kill, without a result, so run again: {again}" in lines


async def test_postgresql(tmp_path: Path, empty_postgres_url: str) -> None:
    """Killed while it waits for an answer, the run is resumed from a server, and then deleted."""
    lines = run_demo(tmp_path, "--url", empty_postgres_url, "--kill-after", "15")
    steps = check_story(lines)
    assert steps["merge"] == ("completed", "skipped")
    assert steps["choose"] == ("input_required", "answered")
    assert steps["report"] == ("pending", "ran")

    connection = await asyncpg.connect(empty_postgres_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM runs") == 0
    finally:
        await connection.close()


def test_definition() -> None:
    """A step stands after those that it depends on, and either runs or asks."""
    for place, step in enumerate(DEFINITION["steps"]):
        assert set(step.get("depends_on", [])) <= set(STEP_IDS[:place])
        assert ("run" in step) != ("ask" in step)
    assert len(set(STEP_IDS)) == len(STEP_IDS)


# -- two replicas, and payment -----------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url_arguments(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The command line that runs an example on each database."""
    if request.param == "sqlite":
        return ()
    return "--url", str(request.getfixturevalue("empty_postgres_url"))


def check_database(url_arguments: tuple[str, ...]) -> None:
    """Check that an example left nothing on the server."""

    async def relations(url: str) -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
                    "WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
                )
            )
        finally:
            await connection.close()

    for url in url_arguments[1:]:
        assert asyncio.run(relations(url)) == 0


def test_two_replicas(tmp_path: Path, url_arguments: tuple[str, ...]) -> None:
    """One is killed; the other takes over what it held, and repeats no committed step."""
    lines = run_demo(tmp_path, *url_arguments, example="two_replicas.py")
    text = "\n".join(lines)
    held = re.search(r"Replica one was killed with SIGKILL while driving (.+)\.\n", text)
    assert held is not None
    assert f"Replica two took over {held[1]} and ended with exit code 0.\n" in text
    for run in held[1].split(", "):
        row = rf"{run} +(\d steps, token (\d+)|-) +(\d) steps, token (\d+)"
        assert any(re.fullmatch(row, line) for line in lines)
    assert len([line for line in lines if line.startswith("ok ")]) == 6
    assert "FAILED" not in text
    check_database(url_arguments)


def test_payment(tmp_path: Path, url_arguments: tuple[str, ...]) -> None:
    """A crash leaves neither the row nor the step, the retry leaves both."""
    lines = run_demo(tmp_path, *url_arguments, example="payment.py")
    rows = [line.split()[-2:] for line in lines if re.match(r"before|attempt", line)]
    assert rows == [["0", "pending"], ["0", "pending"], ["1", "completed"], ["1", "completed"]]
    assert "An attempt wrote 1 payment, and its process ended." in lines
    assert len([line for line in lines if line.startswith("ok ")]) == 4
    assert "FAILED" not in "\n".join(lines)
    check_database(url_arguments)


def test_a_refused_url_is_not_shown(tmp_path: Path) -> None:
    """It may hold a password."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/payment.py", "--url", "mysql://me:secret@host/db"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "must be postgresql://" in done.stderr
    assert "secret" not in done.stderr


class TestHeartbeat:
    """Events that cancel the work for which a claim is kept."""

    @pytest.fixture(autouse=True)
    def _examples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(ROOT / "examples")

    async def test_a_lost_claim_cancels_the_work(self) -> None:
        from heartbeat import kept

        async with InMemoryWorkflowStore() as store:
            claim = await claimed(store, lease_s=60)
            await store.release_claim(claim)
            with pytest.raises(ClaimLostError):
                async with kept(store, claim):
                    await asyncio.Event().wait()

    async def test_a_lease_that_nothing_renews_cancels_the_work(self) -> None:
        from heartbeat import kept

        class Unreachable(InMemoryWorkflowStore):
            async def renew_claim(self, claim: RunClaim) -> RunClaim:
                raise StoreUnavailableError

        async with Unreachable() as store:
            with pytest.raises(ClaimLostError):
                async with kept(store, await claimed(store, lease_s=0.05)):
                    await asyncio.Event().wait()

    async def test_a_claim_is_kept_for_longer_than_its_lease(self) -> None:
        from heartbeat import kept

        class Counting(InMemoryWorkflowStore):
            renewals = 0
            enough = asyncio.Event()

            async def renew_claim(self, claim: RunClaim) -> RunClaim:
                self.renewals += 1
                if self.renewals == 4:
                    self.enough.set()
                return await super().renew_claim(claim)

        async with Counting() as store:
            claim = await claimed(store, lease_s=6)
            async with kept(store, claim):
                await store.enough.wait()
            assert await store.claim_run("run", owner="other") is None

    async def test_the_works_own_errors_pass(self) -> None:
        from heartbeat import kept

        async with InMemoryWorkflowStore() as store:
            claim = await claimed(store, lease_s=60)
            for error in (TimeoutError, KeyError):
                with pytest.raises(error):
                    async with kept(store, claim):
                        raise error
            await store.renew_claim(claim)


async def claimed(store: InMemoryWorkflowStore, *, lease_s: float) -> RunClaim:
    await store.create_run(a_run())
    claim = await store.claim_run("run", owner="me", lease_s=lease_s)
    assert claim is not None
    return claim
