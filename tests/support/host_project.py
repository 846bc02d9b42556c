"""A host application's project, with an Alembic of its own, made of what docs/host.md shows."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic.config import CommandLine, Config
from sqlalchemy import make_url

from support import ROOT
from support.databases import drop_database, new_database, on_server
from support.schema import file_of
from support.waiting import PATIENCE_S
from workflow_store.sql import migrate

BLOCKS = dict(
    re.findall(
        r'^```\w+ title="([^"]+)"\n(.*?)^```$',
        (ROOT / "docs" / "host.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
"""What the page shows as files, by name."""

IN_A_WHEEL = "workflow_store:migrations/versions"

MODELS = """\
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

metadata = MetaData()
Table("accounts", metadata, Column("id", Integer, primary_key=True))
Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", Integer, ForeignKey("accounts.id")),
)
"""

FIRST = """\
from alembic import op
from sqlalchemy import Column, Integer

revision = "4f1c0a9d7b2e"
down_revision = None
branch_labels = ("host",)


def upgrade():
    op.create_table("accounts", Column("id", Integer, primary_key=True))


def downgrade():
    op.drop_table("accounts")
"""

SECOND = """\
from alembic import op
from sqlalchemy import Column, ForeignKey, Integer

revision = "8d2b51e07c3f"
down_revision = "4f1c0a9d7b2e"


def upgrade():
    op.create_table(
        "orders",
        Column("id", Integer, primary_key=True),
        Column("account_id", Integer, ForeignKey("accounts.id")),
    )


def downgrade():
    op.drop_table("orders")
"""

SYNCHRONOUS = """\
def main():
    engine = create_engine(os.environ["DATABASE_URL"].replace("+aiosqlite", ""))
    with engine.connect() as connection:
        run(connection=connection)
    engine.dispose()
"""


class Host:
    """A host's checkout in a folder, and its database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        (folder / "alembic" / "versions").mkdir(parents=True)
        self.write("application.py", MODELS)
        self.write("alembic/versions/first.py", FIRST)
        self.write("alembic/versions/second.py", SECOND)
        self.write("alembic/script.py.mako", (ROOT / "migrations/script.py.mako").read_text())
        here = str(migrate.version_location())  # the tests run on an editable install
        self.write("alembic.ini", replaced(BLOCKS["alembic.ini"], IN_A_WHEEL, here))
        self.write("alembic/env.py", BLOCKS["alembic/env.py"])

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        """Change a file, in which the old text must stand once."""
        self.write(name, replaced((self.folder / name).read_text("utf-8"), old, new))

    def runs_synchronously(self) -> None:
        """Have an `env.py` that knows nothing of asyncio."""
        name = "alembic/env.py"
        env = (self.folder / name).read_text("utf-8")
        begin, end = env.index("async def main"), env.index("\n\nif context.is_offline")
        self.write(name, env[:begin] + SYNCHRONOUS + env[end:])
        self.change(name, "asyncio.run(main())", "main()")
        self.change(name, "import asyncio\n", "from sqlalchemy import create_engine\n")

    def configures(self, **options: object) -> None:
        """Give further options to Alembic."""
        given = "".join(f"        {name}={value!r},\n" for name, value in options.items())
        self.change("alembic/env.py", "        **where,\n", f"        **where,\n{given}")

    def filters_by_schema(self, schema: str) -> None:
        """Have our tables passed over where they are in a schema."""
        name = "alembic/env.py"
        self.change(
            name, "migrate.include_name", f"partial(migrate.include_name, schema={schema!r})"
        )
        self.change(name, "import asyncio\n", "import asyncio\nfrom functools import partial\n")

    def leaves_our_revisions(self) -> None:
        """Have no longer our revisions as a branch."""
        self.change("alembic.ini", f"    {migrate.version_location()}\n", "")

    def command(self, *arguments: str) -> str:
        """Run the command in the checkout, in a process of its own; give what it printed."""
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": self._callers_url()},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def alembic(self, *arguments: str) -> str:
        """Do what the command does, in this process, which takes a tenth of the time."""
        printed = io.StringIO()
        command = CommandLine()
        options = command.parser.parse_args(arguments)
        config = Config(
            self.folder / "alembic.ini", stdout=printed, output_buffer=printed, cmd_opts=options
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATABASE_URL", self._callers_url())
            patch.setattr(sys, "path", [*sys.path])
            patch.delitem(sys.modules, "application", raising=False)
            try:
                command.run_cmd(config, options)
            finally:
                sys.modules.pop("application", None)
        return printed.getvalue()

    def _callers_url(self) -> str:
        driver = "postgresql+asyncpg" if file_of(self.url) is None else "sqlite+aiosqlite"
        return make_url(self.url).set(drivername=driver).render_as_string(hide_password=False)

    def revisions(self) -> set[str]:
        """Tell what the host's own Alembic says that the database is at."""
        return {line.split()[0] for line in self.alembic("current").splitlines()}


class Roles(NamedTuple):
    """A database with the roles and the schema that docs/host.md shows."""

    owner_url: str
    app_url: str
    schema: str
    app: str


@contextlib.contextmanager
def roles_on(server: str, *, migrated: bool = True) -> Iterator[Roles]:
    """Make them, each with a name of its own, and drop them."""
    url = new_database(server)
    unique = uuid.uuid4().hex[:12]
    names = {name: f"{name}_{unique}" for name in ("workflow_owner", "workflow_app")}
    script = BLOCKS["roles.sql"]
    for name, own in names.items():
        script = script.replace(name, own)
    owner_url, app_url = (
        make_url(url).set(username=name, password="change-me").render_as_string(False)
        for name in names.values()
    )
    try:
        asyncio.run(on_server(url, script))
        if migrated:
            asyncio.run(migrate.upgrade(owner_url, schema="workflows"))
        yield Roles(owner_url, app_url, "workflows", names["workflow_app"])
    finally:
        drop_database(server, url)
        asyncio.run(on_server(server, "DROP ROLE IF EXISTS " + ", ".join(names.values())))


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands there {text.count(old)} times"
    return text.replace(old, new)
