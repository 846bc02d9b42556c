"""The commands that write runs as lines of JSON, and read them back."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import IO, Annotated

import typer

from ..archive import from_line, to_line
from ..copying import Outcome, put_run, summaries
from ..errors import InvalidStateError
from ..store import ResumableWorkflowStore
from .common import Exit, emit, name_of, opened, refuse, say, to_terminal
from .options import Schema, Url
from .progress import progress

__all__ = ["export", "import_"]


def export(
    run_task_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run's id, run_task_id.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Export all runs.")] = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print runs as lines of JSON.

    Each run, newest first, is a line {"run": …, "steps": […]} in the wire form of the states.

    Example: workflow-store export --all | gzip > runs.jsonl.gz
    """
    if (run_task_id is None) is not all_runs:
        raise typer.BadParameter("name one RUN, or give --all.")

    async def work() -> int:
        count = 0
        async with opened(url, schema) as store:
            with progress("Exporting", hidden=to_terminal()) as advance:
                async for each in _ids(store, run_task_id):
                    snapshot = await store.load_run(each)
                    if snapshot is not None:  # deleted since it was listed
                        emit(to_line(snapshot))
                        count += 1
                        advance(1)
        return count

    count = asyncio.run(work())
    if run_task_id is not None and not count:
        refuse(f"There is no run {run_task_id!r} in {name_of(url)}.")
    say(f"{count:,} runs exported.")


async def _ids(store: ResumableWorkflowStore, one: str | None) -> AsyncIterator[str]:
    if one is not None:
        yield one
        return
    async for summary in summaries(store):
        yield summary.run_task_id


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The lines; - is standard input.")
    ] = Path("-"),
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Read runs from lines of JSON.

    The lines are such as export prints, and the runs are made to be as they say. Repeating it does
    no harm. A run that is newer in the database is left alone and named, and the command then ends
    with 1. At a line that is wrong it stops; the lines before it are done.

    Example: workflow-store import runs.jsonl --url postgresql://user:password@host/name
    """
    outcomes: Counter[Outcome] = Counter()
    # Lines are read between the runs of the loop: in one, a read that waits could not be
    # interrupted.
    with (
        ExitStack() as files,
        asyncio.Runner() as runner,
        progress("Importing") as advance,
    ):
        lines = _lines(file, files)
        opening = AsyncExitStack()
        store = runner.run(opening.enter_async_context(opened(url, schema, migrate=None)))
        try:
            for number, line in enumerate(lines, 1):
                try:
                    copied = runner.run(put_run(store, from_line(line)))
                except InvalidStateError as error:
                    refuse(f"Line {number:,}: {error}. The lines before it are imported.")
                outcomes[copied.outcome] += 1
                advance(1)
                if copied.outcome is Outcome.NEWER:
                    say(f"Run {copied.run_task_id!r} is newer in the database: left alone.")
        finally:
            runner.run(opening.aclose())
    say(
        f"{outcomes[Outcome.NEW]:,} runs imported, {outcomes[Outcome.CHANGED]:,} brought up to "
        f"date, {outcomes[Outcome.SAME]:,} equal already, {outcomes[Outcome.NEWER]:,} left alone."
    )
    if outcomes[Outcome.NEWER]:
        refuse("Not all runs are as the lines say.")


def _lines(file: Path, files: ExitStack) -> IO[bytes]:
    if str(file) == "-":
        if sys.stdin is None:
            refuse("Standard input is closed.", Exit.USAGE)
        return sys.stdin.buffer
    try:
        return files.enter_context(file.open("rb"))
    except OSError as error:
        refuse(f"{file}: {error.strerror}.")
