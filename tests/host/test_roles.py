"""A role that may read and write rows and nothing else, as docs/host.md makes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

import asyncpg
import pytest

from support.databases import on_server
from support.host_project import BLOCKS, Roles, roles_on
from support.next_version import FIRST
from support.schema import opened_and_checked, opened_and_migrated
from workflow_store import SchemaMismatchError, SqlWorkflowStore, WorkflowStoreError
from workflow_store.sql import migrate
from workflow_store.sql.doctor import Verdict, examine
from workflow_store.testing import a_run

pytestmark = pytest.mark.slow


@pytest.fixture
def roles(postgres_server: str) -> Iterator[Roles]:
    """The roles and the schema of docs/host.md, on a database of this test's own."""
    with roles_on(postgres_server) as roles:
        yield roles


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE workflows.mine (id INTEGER)",
        "CREATE TABLE public.mine (id INTEGER)",
        "CREATE SCHEMA mine",
        "ALTER TABLE workflows.runs ADD COLUMN mine INTEGER",
        "DROP TABLE workflows.claims",
        "TRUNCATE workflows.steps",
    ],
)
async def test_it_may_not_change_what_is_there(roles: Roles, statement: str) -> None:
    """Neither in our schema nor beside it."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await on_server(roles.app_url, statement)


async def test_it_opens_and_has_all_rights_that_a_store_needs(roles: Roles) -> None:
    """So the examination says, which asks for each of them."""
    await opened_and_checked(roles.app_url, schema=roles.schema)
    async with aclosing(examine(roles.app_url, schema=roles.schema)) as findings:
        found = {check: verdict async for check, verdict, *_ in findings}
    assert found["rights"] is Verdict.GOOD


@pytest.mark.usefixtures("next_version")
async def test_it_reaches_the_tables_of_later_revisions(roles: Roles) -> None:
    """The owner's default privileges are for tables that are made later, too."""
    await migrate.downgrade(roles.owner_url, FIRST, schema=roles.schema)
    with pytest.raises(SchemaMismatchError, match=f"at revision {FIRST}"):
        await opened_and_checked(roles.app_url, schema=roles.schema)
    with pytest.raises(
        WorkflowStoreError, match=r"lacks a privilege \(must be owner of .+\): grant it"
    ):
        await opened_and_migrated(roles.app_url, schema=roles.schema)
    await migrate.upgrade(roles.owner_url, schema=roles.schema)
    async with SqlWorkflowStore(roles.app_url, schema=roles.schema) as store:
        await store.create_run(a_run())
        assert await store.claim_run("run", owner="me") is not None


async def test_it_is_given_the_tables_that_are_there_already(roles: Roles) -> None:
    """Where they were made before, one grant does what the default privileges do."""
    app = roles.app
    await on_server(roles.owner_url, f"REVOKE ALL ON ALL TABLES IN SCHEMA workflows FROM {app}")
    with pytest.raises(
        WorkflowStoreError, match=r"lacks a privilege \(permission denied for table workflow"
    ):
        await opened_and_checked(roles.app_url, schema=roles.schema)
    await on_server(roles.owner_url, BLOCKS["grant.sql"].replace("workflow_app", app))
    await opened_and_checked(roles.app_url, schema=roles.schema)


async def test_an_error_names_the_object_of_a_missing_right_and_no_value(roles: Roles) -> None:
    """As PostgreSQL's own message does."""
    revoke = f"REVOKE INSERT ON workflows.runs FROM {roles.app}"
    await on_server(roles.owner_url, revoke)
    async with SqlWorkflowStore(roles.app_url, schema=roles.schema) as store:
        with pytest.raises(WorkflowStoreError, match="permission denied for table runs") as caught:
            await store.create_run(a_run("secret-run", input="secret-input"))
    assert "secret" not in str(caught.value)
