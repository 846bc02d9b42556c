"""The command that copies all runs from one store to another, or compares the two."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import Annotated

import typer

from ..copying import Comparison, Copied, Digest, Outcome, copy_runs, summaries
from ..store import ResumableWorkflowStore
from .common import emit, name_of, opened, refuse, say
from .options import Json
from .progress import progress

__all__ = ["copy"]

_NAMED = 10
"""How many runs are named that stand in the way."""


def copy(
    *,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The URL to copy from.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The URL to copy to.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Only compare the two, and write nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be copied.")
    ] = False,
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="NAME", envvar="WORKFLOW_STORE_SCHEMA",
                     help="The PostgreSQL schema of the tables, on both sides."),
    ] = None,
    source_schema: Annotated[
        str | None,
        typer.Option("--source-schema", metavar="NAME", help="The same, of SRC alone."),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Copy all runs from one store to another.

    With their steps, order and times. Stopped or killed, it goes on where it was when it is called
    again. Runs that only DST has stay there, and those that are newer there stay as they are. At
    the end it compares both sides, and ends with 1 where they do not agree. Claims are not copied.
    DST must have its tables (workflow-store migrate); a SQLite file is made.

    Example: workflow-store copy sqlite:///runs.db postgresql://user:password@host/name
    """
    if verify and dry_run:
        raise typer.BadParameter("--verify and --dry-run exclude each other.")
    compares = verify or dry_run
    in_the_way: dict[Outcome, list[str]] = {Outcome.NEWER: [], Outcome.EXTRA: []}

    async def work() -> Comparison:
        async with (
            opened(source, source_schema or schema) as here,
            opened(destination, schema, migrate=False if compares else None) as there,
        ):
            return await _walks(here, there, write=not compares, in_the_way=in_the_way)

    began = time.monotonic()
    found = asyncio.run(work())
    took_s = time.monotonic() - began
    if as_json:
        emit(_as_json(found))
    else:
        say(f"SRC  {_told(found.source)}  {name_of(source)}")
        say(f"DST  {_told(found.destination)}  {name_of(destination)}")
        say(_outcomes(found.outcomes, "would be " if compares else "") + f" in {took_s:.1f} s.")
    for outcome, what in _IN_THE_WAY.items():
        _tell(found.outcomes[outcome], what, in_the_way[outcome])
    if dry_run:
        return
    if not found.agree:
        refuse("Both sides do not agree." if found.complete else _NEVER_STILL)
    say("Both sides agree.")


_IN_THE_WAY = {
    Outcome.NEWER: "newer in DST than in SRC and were left alone; where SRC is right, delete them "
    "there (workflow-store runs delete) and copy again",
    Outcome.EXTRA: "in DST alone and were left alone; where they were deleted in SRC, delete them "
    "there, too (workflow-store runs delete)",
}
_NEVER_STILL = "SRC is being written to all the time: stop what writes to it, then copy again."


async def _walks(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    *,
    write: bool,
    in_the_way: dict[Outcome, list[str]],
) -> Comparison:
    with progress("Counting") as advance:
        total = 0
        async for _ in summaries(source):
            total += 1
            advance(1)
    with contextlib.ExitStack() as bars:
        advance = _ignore

        def on_pass(number: int) -> None:
            nonlocal advance
            bars.close()
            what = "Copying" if write and number == 1 else "Comparing"
            advance = bars.enter_context(progress(what, total=total))
            for names in in_the_way.values():
                names.clear()

        def on_run(copied: Copied) -> None:
            advance(1)
            names = in_the_way.get(copied.outcome)
            if names is not None and len(names) < _NAMED:
                names.append(copied.run_task_id)

        return await copy_runs(source, destination, write=write, on_run=on_run, on_pass=on_pass)


def _ignore(_: int) -> None:
    pass


def _told(digest: Digest) -> str:
    return f"{digest.runs:,} runs, {digest.steps:,} steps, SHA-256 {digest.sha256[:16]}"


def _outcomes(outcomes: Counter[Outcome], would: str) -> str:
    return (
        f"{outcomes[Outcome.NEW]:,} runs {would}copied, {outcomes[Outcome.CHANGED]:,} {would}"
        f"brought up to date, {outcomes[Outcome.SAME]:,} equal on both sides"
    )


def _tell(count: int, what: str, names: list[str]) -> None:
    if count:
        some = ", ".join(map(repr, names)) + (", …" if count > len(names) else "")
        say(f"{count:,} runs are {what}: {some}")


def _as_json(found: Comparison) -> str:
    return json.dumps(
        {
            "agree": found.agree,
            "source": _members(found.source),
            "destination": _members(found.destination),
            "runs": {outcome.value: found.outcomes[outcome] for outcome in Outcome},
        }
    )


def _members(digest: Digest) -> dict[str, int | str]:
    return {"runs": digest.runs, "steps": digest.steps, "sha256": digest.sha256}
