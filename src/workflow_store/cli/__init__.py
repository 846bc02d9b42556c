"""The command `workflow-store`: migrate, look, move, mend. It needs the extra `cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and end the process."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in {"jinja2", "rich", "typer"}:
            raise
        sys.exit("The command needs more packages: pip install 'workflow-store[cli]'")
    app()
