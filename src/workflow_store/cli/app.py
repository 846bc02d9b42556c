"""The command, put together of its parts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from .common import emit
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
    help="""Keeps the state of workflow runs in SQL: migrate, look, move, mend.

    Ends with 0 where all is done, 1 where the answer is no, 2 where it was used in a wrong way,
    and 3 where the database cannot be reached.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(version("workflow-store"))
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
