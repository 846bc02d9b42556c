"""PostgreSQL databases in other encodings, which cannot keep every text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from support.databases import drop_database, new_database
from support.doctor import BAD, GOOD, finding_of
from workflow_store import SqlWorkflowStore, WorkflowStoreError, open_store
from workflow_store.sql import migrate

ENCODINGS = ("LATIN1", "SQL_ASCII")


@pytest.fixture(params=ENCODINGS)
def other_url(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """A database in another encoding."""
    options = f"TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
    url = new_database(postgres_server, options)
    yield url
    drop_database(postgres_server, url)


async def test_a_database_that_is_not_utf8_is_refused_and_left_as_it_is(other_url: str) -> None:
    engine = create_async_engine(make_url(other_url).set(drivername="postgresql+asyncpg"))
    for opening in (
        open_store(other_url).open(),
        open_store(other_url, migrate=True).open(),
        SqlWorkflowStore(engine).open(),
        SqlWorkflowStore(engine, migrate=True).open(),
        migrate.upgrade(other_url),
        migrate.check(other_url),
    ):
        with pytest.raises(
            WorkflowStoreError, match=r"CREATE DATABASE .* ENCODING 'UTF8'"
        ) as caught:
            await opening
        assert type(caught.value) is WorkflowStoreError
        assert any(encoding in str(caught.value) for encoding in ENCODINGS)
    await engine.dispose()
    assert (await finding_of("tables", other_url)).verdict is BAD


async def test_doctor_reports_the_encoding(other_url: str, postgres_url: str) -> None:
    finding = await finding_of("encoding", other_url)
    assert finding.verdict is BAD
    assert finding.found in ENCODINGS
    assert "ENCODING 'UTF8'" in finding.advice
    assert (await finding_of("encoding", postgres_url)).verdict is GOOD
