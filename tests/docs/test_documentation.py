"""Everything that the documentation shows works as shown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

import workflow_store
from support import ROOT
from support.databases import drop_database, new_database
from support.documentation import PAGES, READ, Reader, blocks
from workflow_store import testing
from workflow_store.sql.dialects import EngineOptions

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = "\n".join(
    path.read_text("utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md"))
)
TO_RUN = [page for page in PAGES if blocks(page)]


async def _roles(server: str) -> set[str]:
    connection = await asyncpg.connect(server)
    try:
        return {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    finally:
        await connection.close()


async def _drop_roles(server: str, names: set[str]) -> None:
    connection = await asyncpg.connect(server)
    try:
        for name in names:
            await connection.execute(f'DROP ROLE "{name}"')
    finally:
        await connection.close()


@pytest.fixture
def page_url(postgres_server: str) -> Iterator[str]:
    """An empty database, dropped afterwards with the roles that the page created."""
    before = asyncio.run(_roles(postgres_server))
    url = new_database(postgres_server)
    yield url
    drop_database(postgres_server, url)
    asyncio.run(_drop_roles(postgres_server, asyncio.run(_roles(postgres_server)) - before))


@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_can_be_followed_from_its_beginning_to_its_end(
    page: Path, tmp_path: Path, page_url: str
) -> None:
    """Each block works, in an empty folder and on an empty database."""
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(folder, page_url)
    for block in blocks(page):
        reader.follow(block)


def test_each_block_is_run_or_read_or_says_why_not() -> None:
    """A language that is not read, or an empty reason, would hide a mistake."""
    for page in TO_RUN:
        for block in blocks(page):
            assert block.language in {*READ, "sql", "text"} or block.title or block.why, block.where
            assert block.why is None or len(block.why) > 20, block.where
            if block.why is not None and block.why.startswith("run by "):
                assert page.name in _with_helpers(ROOT / block.why[len("run by ") :]), block.where


def _with_helpers(test: Path) -> str:
    """Return the text of a test file and of the helpers that it imports."""
    text = test.read_text("utf-8")
    names = re.findall(r"^from support\.(\w+) import", text, re.MULTILINE)
    helpers = [ROOT / "tests" / "support" / f"{name}.py" for name in names]
    return "\n".join([text, *(path.read_text("utf-8") for path in helpers)])


def test_the_readme_names_every_option_as_it_is() -> None:
    """Users look for options there."""
    for option in EngineOptions.__annotations__:
        assert option in README


def test_the_readme_links_to_each_page_of_the_guide() -> None:
    """Users reach them from there."""
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in README or page.name == "index.md"


def test_the_readme_can_be_read_in_two_minutes() -> None:
    """At 250 words a minute. Code blocks and tables are skimmed, not read."""
    prose = re.sub(r"^```.*?^```$|^\|.*?$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) < 550


@pytest.mark.parametrize("name", [*workflow_store.__all__, *testing.__all__])
def test_each_public_name_is_in_the_reference(name: str) -> None:
    """Under its own name, or with its module."""
    homes = [f"::: workflow_store.{name}\n", f"::: workflow_store.testing.{name}\n"]
    in_errors = name in workflow_store.errors.__all__ and "::: workflow_store.errors\n" in REFERENCE
    assert in_errors or any(home in f"{REFERENCE}\n" for home in homes)


@pytest.mark.parametrize("module", ["sql.migrate", "sql.doctor", "copying", "archive", "testing"])
def test_each_public_module_is_in_the_reference(module: str) -> None:
    """With all names of its `__all__`."""
    assert f"::: workflow_store.{module}\n" in REFERENCE
