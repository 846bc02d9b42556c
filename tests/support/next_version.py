"""A next version of the package, with the second revision that only the tests have.

It is the checkout with one revision more, in a folder of its own. Subprocesses import it and
run its Alembic; in the process of the tests, this version is set to its revisions.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from pathlib import Path

import pytest

import workflow_store
from support import ROOT
from workflow_store.sql.models import REVISION as FIRST

__all__ = ["FIRST", "NEXT", "make_next_version", "use_next_version"]

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


def use_next_version(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have this process, and the subprocesses that it starts, use the next version's revisions."""
    # All of them first: one that is imported later would keep the next version's revision.
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(workflow_store.__path__, "workflow_store.")
        if not module.name.endswith(".__main__")
    ]
    for module in modules:
        if hasattr(module, "REVISION"):
            patch.setattr(module, "REVISION", NEXT)
        if hasattr(module, "script_location"):
            patch.setattr(module, "script_location", lambda: folder / "migrations")
    path = [str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    patch.setenv("PYTHONPATH", os.pathsep.join(path))
    patch.setenv("ALEMBIC_CONFIG", str(folder / "alembic.ini"))
