"""Turns every exception into one message and an exit status, without a traceback or a password."""

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
from ..rendering.escaping import escape_invisible
from . import MISSING_EXTRA
from .common import Exit, print_message

__all__ = ["Commands"]

_UsageError: Any = typer.BadParameter.__base__
"""Click's `UsageError`, which Typer does not export."""

_SECRETS = re.compile(
    r"(?<=://)[^?]*\?.*"  # a parameter may be a password with an @ in it
    r"|(?<=://).*(?=@)"
    r"|(?<=://)[^@]*:[^@]*$"  # an option's name ends at the first =, perhaps in a password
    r"|(?<=password=)[^&\s)']*",
    re.DOTALL,
)


class Commands(TyperGroup):
    """A group of commands; reports their errors."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command. If it fails, print one message and exit.

        Unexpected errors are reported by type only: their text may contain a value.
        WORKFLOW_STORE_TRACEBACK=1 shows the traceback.
        """
        try:
            return super().main(*args, **options)
        except Exception as error:
            if os.environ.get("WORKFLOW_STORE_TRACEBACK"):
                raise
            message, status = _describe(error)
            print_message(message)
            sys.exit(status)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the arguments before the command's name."""
        with _mask_usage_errors():
            return super().make_context(*args, **options)

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`, with a default that Typer does not validate by pydantic.

        Importing pydantic takes as long as all else that `--help` does.
        """
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option

    def invoke(self, ctx: Any) -> Any:
        """Parse the command's arguments, and run it."""
        with _mask_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _mask_usage_errors() -> Iterator[None]:
    """Mask secrets in usage errors, which quote arguments: one may be a URL with a password."""
    try:
        yield
    except _UsageError as error:
        error.message = escape_invisible(_SECRETS.sub("***", error.message), lines=True)
        raise


def _describe(error: Exception) -> tuple[str, Exit]:
    if isinstance(error, StoreUnavailableError):
        return str(error), Exit.UNREACHABLE
    if isinstance(error, InvalidStateError) or type(error) is ValueError:
        return str(error), Exit.USAGE
    if isinstance(error, WorkflowStoreError):
        return str(error), Exit.FAILURE
    if isinstance(error, OSError):
        prefix = f"{error.filename}: " if error.filename else ""
        return f"{prefix}{error.strerror}.", Exit.FAILURE
    if isinstance(error, ModuleNotFoundError) and error.name in {"jinja2", "rich"}:
        return MISSING_EXTRA, Exit.FAILURE
    return (
        f"Unexpected {type(error).__name__}: this is a bug in workflow-store. Set "
        "WORKFLOW_STORE_TRACEBACK=1 to see the traceback, which may contain stored data.",
        Exit.FAILURE,
    )
