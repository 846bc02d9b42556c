"""The commands that look at runs and clean them up: list, show, delete, purge."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..archive import to_line
from ..copying import summaries
from ..rendering.html import page
from ..rendering.mermaid import mermaid
from ..rendering.terminal import run_picture, runs_table
from ..state import TaskStatus
from ..store import ResumableWorkflowStore, RunPage, RunSnapshot
from .common import emit, name_of, opened, refuse, say
from .options import Json, Schema, Url, Yes, confirm, time
from .progress import draw, progress

__all__ = ["runs"]

runs = typer.Typer(
    no_args_is_help=True, help="Look at runs and clean them up.", rich_markup_mode=None
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, run_task_id.")]

_SLICES = 100
_SLICE = 500
"""A purge is shown to go on in so many slices, of so many runs at least."""


def _filter(name: str) -> Any:
    return typer.Option(
        f"--{name}", metavar="ID", help=f"Only runs of this {name.removesuffix('-id')}."
    )


def _time_option(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", metavar="TIME", parser=time, help=what)


@runs.command("list")
def list_(
    *,
    agent_id: Annotated[str | None, _filter("agent-id")] = None,
    thread_id: Annotated[str | None, _filter("thread-id")] = None,
    user_id: Annotated[str | None, _filter("user-id")] = None,
    workspace_id: Annotated[str | None, _filter("workspace-id")] = None,
    step_status: Annotated[
        TaskStatus | None,
        typer.Option(
            "--step-status",
            metavar="STATUS",
            help="Only runs with a step in it: "
            "pending, running, input_required, completed, failed or canceled.",
        ),
    ] = None,
    created_after: Annotated[
        datetime | None, _time_option("created-after", "Only runs created later, such as 12h.")
    ] = None,
    created_before: Annotated[
        datetime | None, _time_option("created-before", "Only runs created earlier, such as 30d.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Runs on a page, 1 to 1,000.")
    ] = 50,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", metavar="CURSOR", help="The next_cursor of the page before."),
    ] = None,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first.

    Example: workflow-store runs list --step-status failed --created-after 12h
    """

    async def work() -> RunPage:
        async with opened(url, schema) as store:
            return await store.list_runs(
                agent_id=agent_id,
                thread_id=thread_id,
                user_id=user_id,
                workspace_id=workspace_id,
                step_status=step_status,
                created_after=created_after,
                created_before=created_before,
                limit=limit,
                cursor=cursor,
            )

    found = asyncio.run(work())
    if as_json:
        members = ",".join(summary.model_dump_json() for summary in found.runs)
        emit(f'{{"runs":[{members}],"next_cursor":{json.dumps(found.next_cursor)}}}')
        return
    draw(runs_table(found, datetime.now(UTC)))
    if found.next_cursor is not None:
        say(f"There are more: --cursor {found.next_cursor}")


@runs.command()
def show(
    *,
    run_task_id: Run,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the dependencies as a Mermaid graph.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write one self-contained page; - is standard output."
        ),
    ] = None,
) -> None:
    """Draw a run as a timeline.

    A bar for each step, what it waits for, and what depends on what.

    Example: workflow-store runs show run-1 --html run-1.html
    """
    if as_json + as_mermaid + (html is not None) > 1:
        raise typer.BadParameter("--json, --mermaid and --html exclude each other.")

    async def work() -> RunSnapshot | None:
        async with opened(url, schema) as store:
            return await store.load_run(run_task_id)

    snapshot = asyncio.run(work())
    if snapshot is None:
        refuse(_not_there(run_task_id, url))
    now = datetime.now(UTC)
    if as_json:
        emit(to_line(snapshot))
    elif as_mermaid:
        emit(mermaid(snapshot).rstrip("\n"))
    elif html is None:
        draw(run_picture(snapshot, now))
    elif str(html) == "-":
        emit(page(snapshot, now).rstrip("\n"))
    else:
        _write(html, page(snapshot, now))


@runs.command()
def delete(run_task_id: Run, url: Url = None, schema: Schema = None, yes: Yes = False) -> None:
    """Delete a run, its steps and its claim.

    Example: workflow-store runs delete run-1 --yes
    """

    async def work() -> None:
        async with opened(url, schema) as store:
            if await store.get_run(run_task_id) is None:
                refuse(_not_there(run_task_id, url))
            await store.delete_run(run_task_id)
        say(f"Run {run_task_id!r} is deleted.")

    confirm(f"This deletes run {run_task_id!r} and its steps in {name_of(url)}.", yes=yes)
    asyncio.run(work())


@runs.command()
def purge(
    *,
    created_before: Annotated[
        datetime, _time_option("created-before", "Only runs created earlier, such as 30d.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell how many runs it would be.")
    ] = False,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Delete old runs that have ended.

    Those whose steps have all ended, the oldest first, in small transactions. Stopped at any
    moment, it leaves nothing half deleted. Writers have their turn in between.

    Example: workflow-store runs purge --created-before 90d --dry-run
    """

    async def work() -> int:
        async with opened(url, schema) as store:
            ages = await _ages_of_ended(store, created_before)
            if dry_run:
                return len(ages)
            return await _purge(store, ages, created_before)

    if not dry_run:
        confirm(
            f"This deletes the runs in {name_of(url)} that were created before "
            f"{created_before:%Y-%m-%d %H:%M:%S} UTC and have ended.",
            yes=yes,
        )
    count = asyncio.run(work())
    if as_json:
        emit(json.dumps({"deleted": 0 if dry_run else count, "found": count, "dry_run": dry_run}))
    else:
        say(f"{count:,} runs {'would be' if dry_run else 'were'} deleted.")


async def _ages_of_ended(store: ResumableWorkflowStore, before: datetime) -> list[datetime]:
    """Give when each run was created that a purge would delete, oldest first."""
    with progress("Looking for runs that have ended") as advance:
        ages = []
        async for summary in summaries(store, created_before=before):
            advance(1)
            if all(status.is_terminal for status in summary.step_counts):
                ages.append(summary.created_at)
    return ages[::-1]


async def _purge(
    store: ResumableWorkflowStore, ages: list[datetime], created_before: datetime
) -> int:
    """Purge slice by slice, since only whole calls tell how many runs are gone."""
    size = max(_SLICE, len(ages) // _SLICES)
    count = 0
    with progress("Deleting", total=len(ages)) as advance:
        for until in [*ages[size::size], created_before]:
            deleted = await store.purge_runs(created_before=until)
            advance(deleted)
            count += deleted
    return count


def _not_there(run_task_id: str, url: str | None) -> str:
    return f"There is no run {run_task_id!r} in {name_of(url)}."


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"{path}: {error.strerror}.")
    say(f"Wrote {path}.")
