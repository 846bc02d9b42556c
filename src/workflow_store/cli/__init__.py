"""The command `workflow-store`. It needs the extra `cli`."""

from __future__ import annotations

import sys

__all__ = ["MISSING_EXTRA", "main"]

MISSING_EXTRA = "This command requires additional packages: pip install 'workflow-store[cli]'"


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit(MISSING_EXTRA)
    app()
