"""Whatever fails, the user sees one message and an exit code, never a traceback or a password."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import InvalidStateError, StoreUnavailableError, WorkflowStoreError
from ..rendering.escaping import visible
from .common import Exit, say

__all__ = ["Commands"]

_UsageError: Any = typer.BadParameter.__base__
"""Typer has it under no name of its own."""

_SECRETS = re.compile(
    r"(?<=://).*(?=@)"
    r"|(?<=://)[^@]*:[^@]*$"  # an option's name ends at the first =, perhaps in a password
    r"|(?<=password=)[^&\s)']*",
    re.DOTALL,
)


class Commands(TyperGroup):
    """The commands, and what is made of their failures."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command; where it fails, say so in one message and end.

        An error of no kind that is foreseen is named by its type alone, since its text may
        quote a value. WORKFLOW_STORE_TRACEBACK=1 shows all of it.
        """
        try:
            return super().main(*args, **options)
        except Exception as error:
            if os.environ.get("WORKFLOW_STORE_TRACEBACK"):
                raise
            message, code = _told(error)
            say(message)
            sys.exit(code)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the arguments before the command's name."""
        with _masking():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's arguments, and run it."""
        with _masking():
            return super().invoke(ctx)


@contextmanager
def _masking() -> Iterator[None]:
    """Mask what is quoted of wrong arguments, which may be a URL or worse."""
    try:
        yield
    except _UsageError as error:
        error.message = visible(_SECRETS.sub("***", error.message), lines=True)
        raise


def _told(error: Exception) -> tuple[str, Exit]:
    if isinstance(error, StoreUnavailableError):
        return str(error), Exit.UNREACHABLE
    if isinstance(error, InvalidStateError) or type(error) is ValueError:
        return str(error), Exit.USAGE
    if isinstance(error, WorkflowStoreError):
        return str(error), Exit.NO
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}.", Exit.NO
    return (
        f"Unexpected {type(error).__name__}: this is a fault of workflow-store. "
        "WORKFLOW_STORE_TRACEBACK=1 shows where; mind that it may show values.",
        Exit.NO,
    )
