"""A host application's project with an Alembic of its own, as docs/host.md shows it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging.config
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic.command import init
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
"""The files that the page shows, by name."""

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
def run_migrations_online():
    engine = create_engine(config.get_main_option("sqlalchemy.url"))
    with engine.connect() as connection:
        do_run_migrations(connection)
    engine.dispose()


"""


class Host:
    """A host's project in a folder, made by `alembic init` and docs/host.md, and its database."""

    def __init__(self, folder: Path, url: str, *, diff: str = "branch.diff") -> None:
        self.folder = folder
        self.url = url
        folder.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            init(Config(folder / "alembic.ini"), str(folder / "alembic"), template="async")
        self._apply(BLOCKS[diff])
        self.write("application.py", MODELS)
        self.write("alembic/versions/first.py", FIRST)
        self.write("alembic/versions/second.py", SECOND)
        self.change("alembic/env.py", "target_metadata = None", "from application import metadata")
        self.change("alembic/env.py", "=target_metadata", "=metadata", count=2)
        self.change("alembic.ini", "prepend_sys_path = .", "prepend_sys_path = %(here)s")
        driver = "postgresql+asyncpg" if file_of(url) is None else "sqlite+aiosqlite"
        full_url = make_url(url).set(drivername=driver).render_as_string(hide_password=False)
        placeholder = "driver://user:pass@localhost/dbname"
        self.change("alembic.ini", placeholder, full_url.replace("%", "%%"))
        if diff == "branch.diff":
            # The tests run on an editable install.
            self.change("alembic.ini", IN_A_WHEEL, str(migrate.version_location()))

    def _apply(self, diff: str) -> None:
        subprocess.run(
            ["git", "apply", "-p0", "-"],
            cwd=self.folder,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(self.folder.parent)},
            input=diff,
            check=True,
            encoding="utf-8",
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def change(self, name: str, old: str, new: str, *, count: int = 1) -> None:
        """Change a file that has the old text this often."""
        text = (self.folder / name).read_text("utf-8")
        assert text.count(old) == count, f"{name} has {old!r} {text.count(old)} times"
        self.write(name, text.replace(old, new))

    def runs_synchronously(self) -> None:
        """Use an `env.py` without asyncio."""
        name = "alembic/env.py"
        env = (self.folder / name).read_text("utf-8")
        begin, end = env.index("async def run_async"), env.index("if context.is_offline")
        self.write(name, env[:begin] + SYNCHRONOUS + env[end:])
        self.change(name, "import asyncio\n", "from sqlalchemy import create_engine\n")
        self.change("alembic.ini", "sqlite+aiosqlite", "sqlite")

    def configures(self, **options: object) -> None:
        """Pass further options to `context.configure`."""
        lines = "".join(f"        {name}={value!r},\n" for name, value in options.items())
        online = "        connection=connection,\n"
        self.change("alembic/env.py", online, f"{online}{lines}")

    def ignores_tables_in(self, schema: str) -> None:
        """Exclude our tables in a schema from autogenerate."""
        name = "alembic/env.py"
        self.change(
            name, "migrate.include_name", f"partial(migrate.include_name, schema={schema!r})"
        )
        self.change(name, "import asyncio\n", "import asyncio\nfrom functools import partial\n")

    def leaves_our_revisions(self) -> None:
        """Remove our revisions from the host's Alembic."""
        self.change("alembic.ini", f"    {migrate.version_location()}\n", "")

    def command(self, *arguments: str, succeeds: bool = True) -> str:
        """Run the command in the folder, in a process of its own; return its output or error."""
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "ALEMBIC_CONFIG": str(self.folder / "alembic.ini")},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=PATIENCE_S,
        )
        assert (ended.returncode == 0) == succeeds, ended.stderr
        return ended.stdout if succeeds else ended.stdout + ended.stderr

    def alembic(self, *arguments: str) -> str:
        """Run the command in this process, which takes a tenth of the time."""
        printed = io.StringIO()
        command = CommandLine()
        options = command.parser.parse_args(arguments)
        config = Config(
            self.folder / "alembic.ini", stdout=printed, output_buffer=printed, cmd_opts=options
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", [*sys.path])
            patch.delitem(sys.modules, "application", raising=False)
            # It would disable the loggers of this process.
            patch.setattr(logging.config, "fileConfig", lambda _: None)
            try:
                command.run_cmd(config, options)
            finally:
                sys.modules.pop("application", None)
        return printed.getvalue()

    def revisions(self) -> set[str]:
        """Return the revisions that the database is at, as the host's own Alembic has them."""
        return {line.split()[0] for line in self.alembic("current").splitlines()}


class Roles(NamedTuple):
    """A database with the roles and the schema that docs/host.md shows."""

    owner_url: str
    app_url: str
    schema: str
    app: str


@contextlib.contextmanager
def roles_on(server: str, *, migrated: bool = True) -> Iterator[Roles]:
    """Create them, each with a unique name, and drop them."""
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
