"""Tables and rows that were changed or damaged without the store."""

from __future__ import annotations

import pytest

from support.failures import PAYLOAD, calls, execute, fails, run, step
from workflow_store import (
    InvalidStateError,
    SchemaMismatchError,
    WorkflowStepState,
    WorkflowStore,
    WorkflowStoreError,
    open_store,
)
from workflow_store.sql import migrate


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
