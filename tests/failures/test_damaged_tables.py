"""Tables and rows that were changed or damaged without the store."""

from __future__ import annotations

import pytest

from support.doctor import finding_of
from support.failures import PAYLOAD, calls, execute, fails, run, step
from workflow_store import (
    InvalidStateError,
    SchemaMismatchError,
    TaskStatus,
    WorkflowStepState,
    WorkflowStore,
    WorkflowStoreError,
    open_store,
)
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict, data


async def test_tables_that_are_downgraded_while_the_store_is_open_are_a_schema_mismatch(
    empty_url: str,
) -> None:
    """The error says the command; the store works again after it was given."""
    await migrate.upgrade(empty_url)
    async with open_store(empty_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        await migrate.downgrade(empty_url, "base")
        for call in calls(store).values():
            error = await fails(
                call(), SchemaMismatchError, "alembic", "upgrade workflow_store@head"
            )
            assert isinstance(error, SchemaMismatchError)
            assert error.found is None
            assert error.expected is not None
        await migrate.upgrade(empty_url)
        await store.create_run(run())
        await store.upsert_step("r", step())
        for call in calls(store).values():
            await call()


@pytest.mark.parametrize(
    "damage",
    [
        ["DROP TABLE claims", "DROP TABLE steps", "DROP TABLE runs"],
        ["ALTER TABLE runs RENAME TO old_runs", "ALTER TABLE steps RENAME TO old_steps"],
        ["ALTER TABLE runs RENAME context TO old", "ALTER TABLE steps RENAME error TO old"],
    ],
    ids=["dropped", "renamed", "column renamed"],
)
async def test_tables_that_are_changed_by_hand_while_the_store_is_open_are_a_schema_mismatch(
    empty_url: str, damage: list[str]
) -> None:
    """The revision still says that they are there."""
    await migrate.upgrade(empty_url)
    async with open_store(empty_url) as store:
        await store.create_run(run())
        await execute(empty_url, *damage)
        for name in ("create_run", "get_run", "upsert_step", "list_steps"):
            error = await fails(calls(store)[name](), SchemaMismatchError)
            assert isinstance(error, SchemaMismatchError)
            assert error.found == error.expected


@pytest.fixture
def named_url(request: pytest.FixtureRequest) -> str:
    """The database of the fixture that the test's parameter names."""
    return str(request.getfixturevalue(request.param))


RUN_DAMAGES = {
    "no identifier": "UPDATE runs SET agent_id = ''",
    "not an object": "UPDATE runs SET definition = '[]'",
    "a number beyond all floats": "UPDATE runs SET context = '1e999'",
    "an integer that is too long": f"UPDATE runs SET context = '{'7' * 4301}'",
}
RUN_DAMAGES_SQLITE = {
    "not JSON": "UPDATE runs SET context = 'not json PAYL0AD-S3CR3T'",
    "not a time": "UPDATE runs SET created_at = 'yesterday'",
    "a number for a time": "UPDATE runs SET created_at = 5",
    "bytes for text": "UPDATE runs SET context = x'ff00'",
    "not UTF-8": "UPDATE runs SET agent_id = CAST(x'ff' AS TEXT)",
}
RUN_DAMAGES_POSTGRESQL = {
    "before Christ": "UPDATE runs SET created_at = '0044-03-15 12:00 BC'",
    "after year 9999": "UPDATE runs SET created_at = '10001-01-01'",
}


@pytest.mark.parametrize(
    ("named_url", "damage"),
    [("sqlite_url", sql) for sql in (RUN_DAMAGES | RUN_DAMAGES_SQLITE).values()]
    + [("postgres_url", sql) for sql in (RUN_DAMAGES | RUN_DAMAGES_POSTGRESQL).values()],
    indirect=["named_url"],
)
async def test_a_damaged_run_is_an_error_that_names_it(named_url: str, damage: str) -> None:
    """It can be replaced, and the other runs can be read."""
    async with open_store(named_url) as store:
        await store.create_run(run("damaged"))
        await execute(named_url, damage)
        await store.create_run(run("sound"))
        await fails(store.get_run("damaged"), WorkflowStoreError, "'damaged'")
        assert (await store.get_run("sound")) is not None
        await store.create_run(run("damaged"))
        assert (await store.get_run("damaged")) is not None


STEP_DAMAGES = [
    "UPDATE steps SET status = 'bogus' WHERE step_id = 'two'",
    "UPDATE steps SET error = '5' WHERE step_id = 'two'",
    "UPDATE steps SET wait_task_id = '' WHERE step_id = 'two'",
    "UPDATE steps SET result = '1e999' WHERE step_id = 'two'",
]
STEP_DAMAGES_SQLITE = [
    "UPDATE steps SET result = '{PAYL0AD-S3CR3T' WHERE step_id = 'two'",
    "UPDATE steps SET started_at = 'soon' WHERE step_id = 'two'",
]


@pytest.mark.parametrize(
    ("named_url", "damage"),
    [("sqlite_url", sql) for sql in STEP_DAMAGES + STEP_DAMAGES_SQLITE]
    + [("postgres_url", sql) for sql in STEP_DAMAGES],
    indirect=["named_url"],
)
async def test_a_damaged_step_is_an_error_that_names_its_run_and_not_left_out(
    named_url: str, damage: str
) -> None:
    """Of three steps the second is damaged: the list fails, the two others can be read."""
    async with open_store(named_url) as store:
        await store.create_run(run())
        for step_id in ("one", "two", "three"):
            await store.upsert_step("r", step(step_id))
        await execute(named_url, damage)
        await fails(store.get_step("r", "two"), WorkflowStoreError, "'two'", "'r'")
        await fails(store.list_steps("r"), WorkflowStoreError, "'r'")
        assert await store.get_step("r", "one") == step("one")
        assert await store.get_step("r", "three") == step("three")


LISTED_DAMAGES = {
    "no identifier": "UPDATE runs SET agent_id = '' WHERE run_task_id = 'damaged'",
    "no workspace": "UPDATE runs SET workspace_id = '' WHERE run_task_id = 'damaged'",
    "no status": "UPDATE steps SET status = 'bogus' WHERE run_task_id = 'damaged'",
}
LISTED_DAMAGES_SQLITE = {
    "not a time": "UPDATE runs SET created_at = 'yesterday' WHERE run_task_id = 'damaged'",
    "a number for a time": "UPDATE runs SET updated_at = 5 WHERE run_task_id = 'damaged'",
    "not UTF-8": "UPDATE runs SET user_id = CAST(x'ff' AS TEXT) WHERE run_task_id = 'damaged'",
    "bytes": "UPDATE runs SET thread_id = x'ff' WHERE run_task_id = 'damaged'",
}
LISTED_DAMAGES_POSTGRESQL = {
    "before Christ": "UPDATE runs SET created_at = '0044-03-15 12:00 BC' "
    "WHERE run_task_id = 'damaged'",
    "after year 9999": "UPDATE runs SET updated_at = '10001-01-01' WHERE run_task_id = 'damaged'",
}


@pytest.mark.parametrize(
    ("named_url", "damage"),
    [("sqlite_url", sql) for sql in (LISTED_DAMAGES | LISTED_DAMAGES_SQLITE).values()]
    + [("postgres_url", sql) for sql in (LISTED_DAMAGES | LISTED_DAMAGES_POSTGRESQL).values()],
    indirect=["named_url"],
)
async def test_a_listing_and_doctor_name_the_damaged_run(named_url: str, damage: str) -> None:
    """By any filter that finds it; doctor also names the column, and neither the value."""
    async with open_store(named_url) as store:
        for run_task_id in ("first", "damaged", "last"):
            await store.create_run(run(run_task_id, workspace_id="w"))
            for status in TaskStatus:
                await store.upsert_step(run_task_id, step(status, status=status))
        assert (await finding_of("damaged_rows", named_url)).verdict is Verdict.GOOD
        await execute(named_url, damage)
        await fails(store.list_runs(), WorkflowStoreError, "'damaged'")
        column = damage.split()[3]
        if column != "status":
            for status in TaskStatus:
                await fails(store.list_runs(step_status=status), WorkflowStoreError, "'damaged'")
        _, verdict, found, _ = await finding_of("damaged_rows", named_url)
        assert verdict is Verdict.BAD
        assert f"{column} of " in found
        assert "run 'damaged'" in found
        assert not {"bogus", "yesterday", "0044"} & set(found.split())
        await store.delete_run("damaged")
        assert len((await store.list_runs()).runs) == 2
        assert (await finding_of("damaged_rows", named_url)).verdict is Verdict.GOOD


async def test_a_run_whose_id_cannot_be_read_is_named_by_its_place(sqlite_url: str) -> None:
    async with open_store(sqlite_url) as store:
        for run_task_id in ("first", "damaged", "last"):
            await store.create_run(run(run_task_id))
        await execute(
            sqlite_url,
            "UPDATE runs SET run_task_id = CAST(x'ff' AS TEXT) WHERE run_task_id = 'damaged'",
        )
        await fails(store.list_runs(), WorkflowStoreError, "the run at place 2 of the page")
        assert "run_task_id of run with an unreadable ID" in (
            (await finding_of("damaged_rows", sqlite_url)).found
        )


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE runs SET definition = '[]'",
        "UPDATE runs SET context = '1e999'",
        "UPDATE steps SET result = '1e999'",
        "UPDATE steps SET error = '5'",
        "UPDATE steps SET wait_task_id = ''",
        "UPDATE claims SET owner = ''",
    ],
)
async def test_doctor_names_the_row_and_the_column_of_other_damage(
    database_url: str, damage: str
) -> None:
    async with open_store(database_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", step())
        await store.claim_run("r", owner="o")
    await execute(database_url, damage)
    _, table, _, column, *_ = damage.split()
    place = {"runs": "", "steps": "step 's' of ", "claims": "the claim of "}[table]
    _, verdict, found, _ = await finding_of("damaged_rows", database_url)
    assert (verdict, found) == (
        Verdict.BAD,
        f"1 value that no store wrote, including {column} of {place}run 'r' (checked the newest "
        "1 run, 1 step, 1 claim)",
    )


async def test_doctor_reads_only_the_newest_rows_and_no_large_value(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "DECODING_S", 0.0)  # the first rows are read all the same
    async with open_store(database_url) as store:
        for number in range(150):
            await store.create_run(run(f"{number}", context="x" * 200_000 if number == 149 else {}))
        damage = "UPDATE runs SET agent_id = '' WHERE run_task_id = '0'"
        await execute(database_url, damage)
    _, verdict, found, _ = await finding_of("damaged_rows", database_url)
    assert (verdict, found) == (
        Verdict.GOOD,
        "none (checked the newest 100 runs, 0 steps, 0 claims)",
    )


async def test_a_refused_value_is_told_by_its_place_and_not_by_its_content(
    store: WorkflowStore,
) -> None:
    """The message names the field and the path, and nothing that stands beside it."""
    wrong = {"pages": [PAYLOAD, {"score": float("nan"), "text": PAYLOAD}], "other": PAYLOAD}
    await store.create_run(run())
    for call, place in (
        (store.create_run(run(context=wrong)), "context.pages[1].score"),
        (store.create_run(run(input=wrong)), "input.pages[1].score"),
        (store.update_context("r", wrong), "context.pages[1].score"),
        (store.upsert_step("r", step(result=wrong)), "result.pages[1].score"),
    ):
        with pytest.raises(InvalidStateError) as caught:
            await call
        assert place in str(caught.value)
        assert "S3CR3T" not in str(caught.value)


async def test_a_stored_value_that_nests_too_deeply_is_a_corrupt_row(sqlite_url: str) -> None:
    """No store writes more than 128 levels. Brackets inside a string do not count."""
    deep = "[" * 100_000 + "]" * 100_000  # PostgreSQL takes fewer than Python 3.13 reads
    async with open_store(sqlite_url) as store:
        await store.create_run(run())
        await store.upsert_step("r", WorkflowStepState(step_id="s", result="[" * 20_000))
        assert await store.load_run("r") is not None
        await execute(sqlite_url, f"UPDATE steps SET result = '{deep}'")
        for call in (store.get_step("r", "s"), store.list_steps("r"), store.load_run("r")):
            with pytest.raises(WorkflowStoreError, match="corrupt"):
                await call
