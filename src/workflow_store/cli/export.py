"""The commands that export runs to JSON Lines and import them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidStateError
from ..formatting import counted
from .common import (
    Exit,
    display_url,
    fail,
    fail_run_not_found,
    open_private,
    opened,
    print_data,
    print_message,
    run,
    stdout_is_terminal,
)
from .options import Schema, Url
from .progress import progress

if TYPE_CHECKING:
    from ..store import ResumableWorkflowStore

__all__ = ["export", "import_"]


def export(
    run_task_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run_task_id of the run.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Export all runs.")] = False,
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="FILE", help="The file to write, or - for standard output."
        ),
    ] = Path("-"),
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print runs as JSON Lines.

    Each line is a run, {"run": …, "steps": […]}. The newest run comes first. A new file can be
    read by its owner only.

    Example: workflow-store export --all | gzip > runs.jsonl.gz
    """
    if (run_task_id is None) is not all_runs:
        raise typer.BadParameter("pass either a RUN or --all.")

    async def work() -> int:
        from ..archive import to_line

        count = 0
        async with opened(url, schema) as store:
            if run_task_id is not None and await store.get_run(run_task_id) is None:
                fail_run_not_found(run_task_id, url)  # and leave the file as it is
            with ExitStack() as files:
                write: Callable[[str], object]
                write = print_data if str(output) == "-" else _writer(output, files)
                advance = files.enter_context(progress("Exporting", hidden=stdout_is_terminal()))
                async for listed_id in _ids(store, run_task_id):
                    snapshot = await store.load_run(listed_id)
                    if snapshot is not None:  # else it was deleted after it was listed
                        write(to_line(snapshot))
                        count += 1
                        advance(1)
        return count

    count = run(work())
    if run_task_id is not None and not count:
        fail_run_not_found(run_task_id, url)
    print_message(f"{counted(count, 'run')} exported.")


def _writer(output: Path, files: ExitStack) -> Callable[[str], object]:
    """Return a function that writes a line to a file."""
    file = files.enter_context(open_private(output))
    return lambda line: file.write(f"{line}\n".encode())


async def _ids(store: ResumableWorkflowStore, run_task_id: str | None) -> AsyncIterator[str]:
    """Yield the given id, or those of all runs."""
    from ..copying import summaries

    if run_task_id is not None:
        yield run_task_id
        return
    async for summary in summaries(store):
        yield summary.run_task_id


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The file to import, or - for standard input.")
    ] = Path("-"),
    max_line_mb: Annotated[
        int,
        typer.Option(
            "--max-line-mb", metavar="N", min=1, max=2**20, help="The longest line, in MiB."
        ),
    ] = 1024,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Import runs from JSON Lines.

    The input must be in the format written by export. Each run is overwritten with the contents of
    its line, so importing twice changes nothing. A run that is newer in the database is left alone
    and reported, and the exit status is then 1. The import stops at an invalid line; the lines
    before it are imported.

    Example: workflow-store import runs.jsonl --url postgresql://user:password@host/name
    """
    import asyncio
    from collections import Counter

    from ..archive import from_line
    from ..copying import Outcome, put_run

    outcomes: Counter[Outcome] = Counter()
    # Lines are read outside the event loop: inside it, Ctrl-C would not interrupt a blocking read.
    with (
        ExitStack() as files,
        asyncio.Runner() as runner,
        progress("Importing") as advance,
    ):
        lines = _lines(_input(file, files), max_line_mb)
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(url, schema, migrate=None)))
        try:
            for number, line in enumerate(lines, 1):
                try:
                    result = runner.run(put_run(store, from_line(line)))
                except InvalidStateError as error:
                    fail(f"Line {number:,}: {error}. The lines before it were imported.")
                outcomes[result.outcome] += 1
                advance(1)
                if result.outcome is Outcome.NEWER:
                    print_message(
                        f"Run {result.run_task_id!r} is newer in the database and was left alone."
                    )
        finally:
            runner.run(stack.aclose())
    print_message(
        f"{counted(outcomes[Outcome.NEW], 'run')} imported, {outcomes[Outcome.CHANGED]:,} updated, "
        f"{outcomes[Outcome.SAME]:,} unchanged, {outcomes[Outcome.NEWER]:,} left alone."
    )
    if outcomes[Outcome.NEWER]:
        fail(f"Some runs in {display_url(url)} are newer than the versions in the input.")


def _lines(file: IO[bytes], max_line_mb: int) -> Iterator[bytes]:
    """Yield lines, and fail at one that is longer: it may be another program's, without an end."""
    most = max_line_mb * 2**20
    for number in itertools.count(1):
        line = file.readline(most + 1)
        if not line:
            return
        if len(line) > most and not line.endswith(b"\n"):
            fail(
                f"Line {number:,}: longer than {max_line_mb:,} MiB; if it is a run, raise "
                "--max-line-mb. The lines before it were imported."
            )
        yield line


def _input(file: Path, files: ExitStack) -> IO[bytes]:
    if str(file) == "-":
        if sys.stdin is None:
            fail("Standard input is closed.", Exit.USAGE)
        return sys.stdin.buffer
    return files.enter_context(file.open("rb"))
