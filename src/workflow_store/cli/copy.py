"""The command that copies all runs from one store to another, or compares the stores."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ..formatting import counted
from .common import display_url, fail, opened, print_data, print_message, run
from .options import Json
from .progress import Advance, progress

if TYPE_CHECKING:
    from ..copying import Comparison, Copied, Digest, Outcome
    from ..store import ResumableWorkflowStore

    Conflicts = dict[Outcome, list[str]]

__all__ = ["copy"]

_MAX_NAMES = 10
"""How many of the runs that were left alone are named."""

_ADVICE = {
    "newer": "newer in DST than in SRC (if SRC is right, use workflow-store runs delete in DST, "
    "then copy again)",
    "extra": "only in DST (if deleted in SRC, use workflow-store runs delete in DST too)",
}


def copy(
    *,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The URL to copy from.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The URL to copy to.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the two stores, and write nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be copied, and write nothing.")
    ] = False,
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="NAME", envvar="WORKFLOW_STORE_SCHEMA",
                     help="The PostgreSQL schema of the tables in SRC and DST."),
    ] = None,
    source_schema: Annotated[
        str | None,
        typer.Option("--source-schema", metavar="NAME",
                     help="The PostgreSQL schema in SRC, if different."),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Copy all runs from one store to another.

    Steps keep their order and times; claims are not copied. An interrupted copy continues when it
    is run again. Runs that exist only in DST, or are newer there, are left alone. Afterwards the
    two stores are compared; if they differ, the exit status is 1. The tables must already exist in
    DST (run workflow-store migrate first), unless DST is a SQLite file, which is created if
    necessary.

    Example: workflow-store copy sqlite:///runs.db postgresql://user:password@host/name
    """
    if verify and dry_run:
        raise typer.BadParameter("--verify and --dry-run are mutually exclusive.")
    from ..copying import Outcome

    write = not verify and not dry_run
    conflicts: Conflicts = {Outcome.NEWER: [], Outcome.EXTRA: []}

    async def work() -> Comparison:
        async with (
            opened(source, source_schema or schema) as source_store,
            opened(destination, schema, migrate=None if write else False) as destination_store,
        ):
            return await _copy(source_store, destination_store, write, conflicts)

    started_s = time.monotonic()
    comparison = run(work())
    took_s = time.monotonic() - started_s
    if as_json:
        print_data(_to_json(comparison))
    else:
        outcomes = comparison.outcomes
        would_be = "" if write else "would be "
        print_message(f"SRC  {_describe(comparison.source)}  {display_url(source)}")
        print_message(f"DST  {_describe(comparison.destination)}  {display_url(destination)}")
        print_message(
            f"{counted(outcomes[Outcome.NEW], 'run')} {would_be}copied, "
            f"{outcomes[Outcome.CHANGED]:,} {would_be}updated, "
            f"{outcomes[Outcome.SAME]:,} identical ({took_s:.1f} s)."
        )
    for outcome, names in conflicts.items():
        count = comparison.outcomes[outcome]
        if count:
            listed = ", ".join(map(repr, names)) + (", …" if count > len(names) else "")
            print_message(f"{counted(count, 'run')} left alone, {_ADVICE[outcome.value]}: {listed}")
    if dry_run:
        return
    if not comparison.complete:
        fail("SRC is being written to: stop its writers, then copy again.")
    if not comparison.agree:
        fail("The two stores differ.")
    print_message("The two stores match.")


async def _copy(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    write: bool,
    conflicts: Conflicts,
) -> Comparison:
    """Copy or compare, with a progress bar for each pass, and note the names of conflicts."""
    from ..copying import copy_runs

    bars = ExitStack()
    advance: Advance
    count: int | None = None

    def on_pass(number: int) -> None:
        nonlocal advance, count
        bars.close()
        # The first pass counts the runs; the others have a percentage.
        task = "Copying" if write and number == 1 else "Comparing"
        advance = bars.enter_context(progress(task, total=count))
        count = 0
        for names in conflicts.values():
            names.clear()

    def on_run(result: Copied) -> None:
        nonlocal count
        count = (count or 0) + 1
        advance(1)
        names = conflicts.get(result.outcome)
        if names is not None and len(names) < _MAX_NAMES:
            names.append(result.run_task_id)

    with bars:
        return await copy_runs(source, destination, write=write, on_run=on_run, on_pass=on_pass)


def _describe(digest: Digest) -> str:
    runs, steps = counted(digest.runs, "run"), counted(digest.steps, "step")
    return f"{runs}, {steps}, SHA-256 {digest.sha256[:16]}"


def _to_json(comparison: Comparison) -> str:
    from ..copying import Outcome

    def members(digest: Digest) -> dict[str, int | str]:
        return {"runs": digest.runs, "steps": digest.steps, "sha256": digest.sha256}

    return json.dumps(
        {
            "agree": comparison.agree,
            "source": members(comparison.source),
            "destination": members(comparison.destination),
            "runs": {outcome.value: comparison.outcomes[outcome] for outcome in Outcome},
        }
    )
