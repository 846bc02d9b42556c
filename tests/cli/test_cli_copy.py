"""The command `copy`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from support.commands import MODULE, Ended, command, misused, refused
from support.failures import no_sessions, path_of, sessions
from support.next_version import FIRST
from support.processes import check_file, count, orphans, query
from support.samples import (
    DAY,
    MICROSECOND,
    filled,
    hostile,
    lines_of,
    newest_first,
    several,
    snapshot,
    step,
)
from support.schema import execute
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.measured]

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def other_url(tmp_path: Path) -> str:
    """Another SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/other.db"


def compared(ended: Ended) -> dict[str, int]:
    found = json.loads(ended.out)["runs"]
    return {name: count for name, count in found.items() if count}


def versions(url: str) -> list[tuple[object, ...]]:
    """Give what changes with each write to a row of PostgreSQL, the same values included."""
    rows = [
        asyncio.run(query(url, f"SELECT xmin::text, ctid::text FROM {table}"))
        for table in ("runs", "steps")
    ]
    return [row for some in rows for row in sorted(some)]


@contextlib.contextmanager
def unwritten(url: str) -> Iterator[None]:
    """Make sure that nothing is written to a database."""
    if url.startswith("postgresql"):
        before = versions(url)
        yield
        assert versions(url) == before
        return
    with contextlib.closing(sqlite3.connect(path_of(url))) as watching:
        (before,) = watching.execute("PRAGMA data_version").fetchone()
        yield
        assert watching.execute("PRAGMA data_version").fetchone() == (before,)


# -- there and back --------------------------------------------------------------------


def test_a_copy_to_postgresql_and_back_is_the_same(
    sqlite_url: str, postgres_url: str, other_url: str
) -> None:
    """Order, times to the microsecond and each JSON value; the digests say so."""
    snapshots = [*several(30), hostile()]
    filled(sqlite_url, *snapshots)
    there = command("copy", sqlite_url, postgres_url, "--json")
    assert (there.code, there.err) == (0, "The two stores match.\n")
    found = json.loads(there.out)
    sha256 = found["source"]["sha256"]
    assert found == {
        "agree": True,
        "source": {"runs": 31, "steps": 93, "sha256": sha256},
        "destination": {"runs": 31, "steps": 93, "sha256": sha256},
        "runs": {"same": 31, "new": 31, "changed": 0, "newer": 0, "extra": 0},
    }
    assert len(sha256) == 64
    back = command("copy", postgres_url, other_url, "--json")
    assert json.loads(back.out) == found
    assert lines_of(sqlite_url) == lines_of(postgres_url) == lines_of(other_url)
    assert lines_of(other_url) == newest_first(*snapshots)


def test_people_are_told_the_same(sqlite_url: str, other_url: str) -> None:
    """On standard error: there is no data to print."""
    filled(sqlite_url, *several(2))
    done = command("copy", sqlite_url, other_url)
    assert (done.code, done.out) == (0, "")
    source, destination, what, end = done.err.splitlines()
    assert source.startswith("SRC  2 runs, 6 steps, SHA-256 ")
    assert destination.startswith("DST  2 runs, 6 steps, SHA-256 ")
    assert source.split()[6:7] == destination.split()[6:7]
    assert what.startswith("2 runs copied, 0 updated, 2 identical (")
    assert end == "The two stores match."


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_second_copy_a_dry_run_and_a_comparison_write_nothing(
    sqlite_url: str, other_url: str, postgres_url: str, kind: str
) -> None:
    """No row is touched, not even with what it holds already."""
    destination = other_url if kind == "sqlite" else postgres_url
    filled(sqlite_url, *several(5))
    assert command("copy", sqlite_url, destination).code == 0
    with unwritten(sqlite_url), unwritten(destination):
        assert compared(command("copy", sqlite_url, destination, "--json")) == {"same": 5}
        assert command("copy", sqlite_url, destination, "--verify").code == 0

    steps = [*several(1)[0].steps, step("other")]
    anew = snapshot("run-00000", *steps, updated_at=DAY + 999 * MICROSECOND)
    filled(sqlite_url, snapshot("new"), anew)
    filled(destination, snapshot("extra"))
    with unwritten(sqlite_url), unwritten(destination):
        different = command("copy", sqlite_url, destination, "--verify", "--json")
        assert different.code == 1
        assert compared(different) == {"same": 4, "new": 1, "changed": 1, "extra": 1}
        dry = command("copy", sqlite_url, destination, "--dry-run", "--json")
        assert dry.code == 0
        assert compared(dry) == compared(different)
        told = command("copy", sqlite_url, destination, "--dry-run")
        assert "1 run would be copied, 1 would be updated, 4 identical (" in told.err
    misused(command("copy", "a", "b", "--dry-run", "--verify"), "are mutually exclusive")


def test_a_copy_writes_what_differs_alone(sqlite_url: str, postgres_url: str) -> None:
    """A step that was changed, and one that is new: the other rows are not touched."""
    filled(sqlite_url, *several(3))
    assert command("copy", sqlite_url, postgres_url).code == 0
    before = versions(postgres_url)
    first, *others = several(1)[0].steps
    changed = step(first.step_id, result="changed", completed_at=DAY + MICROSECOND)
    filled(sqlite_url, snapshot("run-00000", changed, *others, step("new")))
    assert command("copy", sqlite_url, postgres_url).code == 0
    after = versions(postgres_url)
    assert (len(before), len(after), len(set(before) - set(after))) == (12, 13, 1)
    assert lines_of(postgres_url) == lines_of(sqlite_url)


def test_runs_that_stand_in_the_way_are_named_and_end_it_with_1(
    sqlite_url: str, other_url: str
) -> None:
    """Those that are newer there, and those that are there alone; all else is copied."""
    filled(sqlite_url, *several(3), snapshot("newer\x1b", step("s")))
    newer = snapshot("newer\x1b", step("s", completed_at=DAY + MICROSECOND))
    filled(other_url, newer, *(snapshot(f"extra-{number:02}") for number in range(12)))
    kept = set(lines_of(other_url))
    done = command("copy", sqlite_url, other_url)
    assert (done.code, done.out) == (1, "")
    said = done.err.splitlines()
    assert "3 runs copied" in said[2]
    assert said[3].startswith("1 run left alone, newer in DST than in SRC")
    assert said[3].endswith(r": 'newer\x1b'")
    assert said[4].startswith("12 runs left alone, only in DST")
    assert said[4].endswith(", …")
    assert said[5:] == ["The two stores differ."]
    assert set(lines_of(other_url)) == kept | set(newest_first(*several(3)))

    command("runs", "delete", "newer\x1b", "--yes", "--url", other_url)
    found = json.loads(command("copy", sqlite_url, other_url, "--json").out)
    assert found["agree"] is False
    assert found["runs"] == {"same": 4, "new": 1, "changed": 0, "newer": 0, "extra": 12}


@pytest.mark.usefixtures("next_version")
def test_a_file_is_made_and_brought_up_to_date_only_as_what_is_copied_to(
    sqlite_url: str, other_url: str, tmp_path: Path
) -> None:
    """A source that is missing or old is told, and left as it is."""
    refused(command("copy", sqlite_url, other_url), 3, "store.db does not exist")
    filled(sqlite_url, *several(1))
    for option in ("--verify", "--dry-run"):
        refused(command("copy", sqlite_url, other_url, option), 3, "other.db does not exist")
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []
    assert command("migrate", "--to", FIRST, "--url", other_url).code == 0
    refused(command("copy", other_url, sqlite_url), 1, FIRST, "workflow-store migrate")
    refused(command("copy", sqlite_url, other_url, "--verify"), 1, FIRST)
    assert command("copy", sqlite_url, other_url).code == 0
    assert command("check", "--url", other_url).code == 0


def test_an_empty_store_is_copied_too(sqlite_url: str, empty_postgres_url: str) -> None:
    """PostgreSQL must have its tables, in the schema that is asked for, on either side."""
    filled(sqlite_url)
    refused(command("copy", sqlite_url, empty_postgres_url), 1, "workflow-store migrate")
    inside = ("--schema", "inside")
    command("migrate", *inside, "--url", empty_postgres_url)
    found = json.loads(command("copy", sqlite_url, empty_postgres_url, *inside, "--json").out)
    assert found["source"] == found["destination"] == {"runs": 0, "steps": 0, "sha256": EMPTY}

    filled(sqlite_url, *several(2))
    assert command("copy", sqlite_url, empty_postgres_url, *inside).code == 0
    command("migrate", "--url", empty_postgres_url)
    across = ("copy", empty_postgres_url, empty_postgres_url, "--schema", "public")
    done = command(*across, "--source-schema", "inside", "--json")
    assert compared(done) == {"new": 2, "same": 2}
    assert lines_of(empty_postgres_url) == lines_of(sqlite_url)


def test_a_failure_on_the_way_is_one_message(sqlite_url: str, postgres_url: str) -> None:
    """As where a right is missing, or the tables are not ours."""
    filled(sqlite_url, *several(30))
    try:
        asyncio.run(execute(postgres_url, "ALTER TABLE steps RENAME TO were_steps"))
        refused(command("copy", sqlite_url, postgres_url), 1, "dropped or altered")
    finally:
        asyncio.run(execute(postgres_url, "ALTER TABLE were_steps RENAME TO steps"))
    assert command("copy", sqlite_url, postgres_url).code == 0


# -- killed ----------------------------------------------------------------------------


async def kill_half_way(source: str, destination: str, steps: int) -> None:
    """Start a copy, and kill it when there are so many steps.

    The copy waits for a lock on a table, and the next lock waits behind it. PostgreSQL grants
    them in turn, so that the copy never gets far ahead of the test.
    """
    server, table = source, "steps"
    if destination.startswith("postgresql"):
        server, table = destination, "steps IN EXCLUSIVE MODE"  # readers pass

    async def lock() -> asyncpg.Connection:
        session = await asyncpg.connect(server)
        await session.execute(f"BEGIN; LOCK TABLE {table}")
        return session

    async def waiting() -> int:
        return len(await sessions(server, that="wait_event_type = 'Lock'"))

    async def copy_waits() -> bool:
        assert running.returncode is None
        return await waiting() > 0

    held = await lock()
    running = await asyncio.create_subprocess_exec(
        *MODULE, "copy", source, destination, stdout=PIPE, stderr=PIPE
    )
    try:
        await until(copy_waits)
        while await count(destination, "steps") < steps:
            before = await waiting()
            locking = asyncio.create_task(lock())

            async def lock_waits(before: int = before) -> bool:
                return await waiting() > before

            await until(lock_waits)
            await held.close()
            held = await locking
            await until(copy_waits)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await held.close()
        await running.communicate()
    assert running.returncode == -signal.SIGKILL
    await no_sessions(server)


def test_a_copy_that_is_killed_three_times_goes_on(
    sqlite_url: str, other_url: str, postgres_url: str
) -> None:
    """Nothing is doubled or lost; what is there at the end is what a copy in peace makes."""
    snapshots = several(200, steps=10)
    filled(sqlite_url, *snapshots, hostile())
    for steps in (200, 700, 1200):
        asyncio.run(kill_half_way(sqlite_url, postgres_url, steps))
    done = command("copy", sqlite_url, postgres_url)
    assert done.err.splitlines()[-1] == "The two stores match."
    assert done.code == 0
    assert lines_of(postgres_url) == lines_of(sqlite_url) == newest_first(*snapshots, hostile())
    assert asyncio.run(count(postgres_url, "steps")) == 2003
    assert asyncio.run(orphans(postgres_url)) == []

    filled(other_url)
    asyncio.run(kill_half_way(postgres_url, other_url, 500))
    asyncio.run(check_file(other_url))
    assert command("copy", postgres_url, other_url).code == 0
    assert lines_of(other_url) == lines_of(sqlite_url)
