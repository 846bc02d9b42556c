"""A next version of the package, with the second revision that only the tests have.

It is this checkout with one more revision, in a folder of its own. Subprocesses import it and
run its Alembic; in the process of the tests, this version gets its revisions.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import ROOT
from workflow_store.sql.models import REVISION as FIRST

__all__ = ["FIRST", "NEXT", "make_next_version", "set_revisions", "use_next_version"]

NEXT = "ws_0002"
"""The revision that the next version needs."""


def make_next_version(folder: Path) -> Path:
    """Make a checkout of the next version."""
    shutil.copytree(ROOT / "src", folder / "src")
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    shutil.copy(ROOT / "alembic.ini", folder)
    (revision,) = (ROOT / "tests/migrations/revisions").glob(f"{NEXT}_*.py")
    shutil.copy(revision, folder / "migrations/versions")
    models = folder / "src/workflow_store/sql/models.py"
    source = models.read_text("utf-8")
    assert source.count(f'REVISION = "{FIRST}"') == 1
    models.write_text(source.replace(f'REVISION = "{FIRST}"', f'REVISION = "{NEXT}"'), "utf-8")
    return folder


@contextmanager
def use_next_version(folder: Path) -> Iterator[None]:
    """Use the revisions of the next version, in this process and in those that it starts."""
    path = [str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.setenv("ALEMBIC_CONFIG", str(folder / "alembic.ini"))
        set_revisions(NEXT, folder)
        try:
            yield
        finally:
            set_revisions(FIRST, ROOT)


def set_revisions(revision: str, folder: Path) -> None:
    """Have this process need a revision, and find the revisions in a checkout."""
    # In every module, since each has imported these names, perhaps a moment ago.
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "workflow_store":
            if "REVISION" in vars(module):
                vars(module)["REVISION"] = revision
            if "script_location" in vars(module):
                vars(module)["script_location"] = lambda: folder / "migrations"
