"""The Typer application: all commands, and the options of the command itself."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .common import print_data
from .copy import copy
from .doctor import doctor
from .errors import Commands
from .export import export, import_
from .migrate import check, current, downgrade, migrate
from .runs import runs

__all__ = ["app"]

app = typer.Typer(
    name="workflow-store",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Migrate, inspect, copy and check a database of workflow runs.

    Exit status: 0 success, 1 failure or a failed check, 2 usage error, 3 database
    unreachable.""",
)


def _print_version(requested: bool) -> None:
    if requested:
        print_data(__version__)
        raise typer.Exit


@app.callback()
def _workflow_store(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for command in (migrate, check, current, downgrade, doctor, copy, export):
    app.command()(command)
app.command("import")(import_)
app.add_typer(runs, name="runs")
