"""The commands about runs: list, show, delete, purge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..formatting import counted
from .common import (
    display_url,
    fail_run_not_found,
    open_private,
    opened,
    print_data,
    print_message,
    run,
)
from .errors import Commands
from .options import Json, Schema, Url, Yes, confirm, parse_status, parse_time
from .progress import draw, progress

if TYPE_CHECKING:
    from ..store import ResumableWorkflowStore, RunPage, RunSnapshot

__all__ = ["runs"]

runs = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, delete and purge runs.",
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run_task_id of the run.")]


def _id_option(name: str) -> Any:
    return typer.Option(
        f"--{name}", metavar="ID", help=f"Only runs of this {name.removesuffix('-id')}."
    )


def _time_option(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", metavar="TIME", parser=parse_time, help=text)


@runs.command("list")
def list_(
    *,
    agent_id: Annotated[str | None, _id_option("agent-id")] = None,
    thread_id: Annotated[str | None, _id_option("thread-id")] = None,
    user_id: Annotated[str | None, _id_option("user-id")] = None,
    workspace_id: Annotated[str | None, _id_option("workspace-id")] = None,
    step_status: Annotated[
        Any,
        typer.Option(
            "--step-status",
            metavar="STATUS",
            parser=parse_status,
            help="Only runs with a step in this status: "
            "pending, running, input_required, completed, failed or canceled.",
        ),
    ] = None,
    created_after: Annotated[
        datetime | None, _time_option("created-after", "Only runs created after this time.")
    ] = None,
    created_before: Annotated[
        datetime | None, _time_option("created-before", "Only runs created before this time.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Runs per page, 1 to 1,000.")
    ] = 50,
    cursor: Annotated[
        str | None,
        typer.Option("--cursor", metavar="CURSOR", help="The next_cursor of the previous page."),
    ] = None,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first.

    TIME is a timestamp with a UTC offset (2026-01-31T23:59:59Z), a date (2026-01-31), or an age
    (12h, 30d).

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

    page = run(work())
    if as_json:
        summaries = ",".join(summary.model_dump_json() for summary in page.runs)
        print_data(f'{{"runs":[{summaries}],"next_cursor":{json.dumps(page.next_cursor)}}}')
        return
    from ..rendering.terminal import runs_table

    draw(runs_table(page, datetime.now(UTC)))
    if page.next_cursor is not None:
        print_message(f"There are more runs. To list them, pass --cursor {page.next_cursor}")


@runs.command()
def show(
    *,
    run_task_id: RunId,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the dependencies as a Mermaid flowchart.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write an HTML page to a file, or - for standard output."
        ),
    ] = None,
) -> None:
    """Show the timeline of a run.

    Each step is drawn as a bar, with a note if it is waiting or has failed. The dependencies
    between steps follow.

    Example: workflow-store runs show run-1 --html run-1.html
    """
    if as_json + as_mermaid + (html is not None) > 1:
        raise typer.BadParameter("--json, --mermaid and --html are mutually exclusive.")

    async def work() -> RunSnapshot | None:
        async with opened(url, schema) as store:
            return await store.load_run(run_task_id)

    snapshot = run(work())
    if snapshot is None:
        fail_run_not_found(run_task_id, url)
    now = datetime.now(UTC)
    if as_json:
        from ..archive import to_line

        print_data(to_line(snapshot))
    elif as_mermaid:
        from ..rendering.mermaid import mermaid

        print_data(mermaid(snapshot).rstrip("\n"))
    elif html is None:
        from ..rendering.terminal import run_view

        draw(run_view(snapshot, now))
    else:
        from ..rendering.html import page

        text = page(snapshot, now)
        if str(html) == "-":
            print_data(text.rstrip("\n"))
        else:
            with open_private(html) as file:
                file.write(text.encode())
            print_message(f"Wrote {html}.")


@runs.command()
def delete(run_task_id: RunId, url: Url = None, schema: Schema = None, yes: Yes = False) -> None:
    """Delete a run, its steps and its claim.

    Example: workflow-store runs delete run-1 --yes
    """

    async def work() -> None:
        async with opened(url, schema) as store:
            if await store.get_run(run_task_id) is None:
                fail_run_not_found(run_task_id, url)
            await store.delete_run(run_task_id)
        print_message(f"Run {run_task_id!r} was deleted.")

    confirm(f"This deletes run {run_task_id!r} and its steps in {display_url(url)}.", yes=yes)
    run(work())


@runs.command()
def purge(
    *,
    created_before: Annotated[
        datetime,
        _time_option(
            "created-before",
            "Only runs created before this time, or longer ago than this age: 30d.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the runs, and delete nothing.")
    ] = False,
    url: Url = None,
    schema: Schema = None,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Delete old runs that have ended.

    A run has ended if all its steps have ended. The oldest runs are deleted first, in small
    transactions, to minimize delays for other writers. An interrupted purge leaves no run partly
    deleted.

    Example: workflow-store runs purge --created-before 90d --dry-run
    """

    async def work() -> int:
        async with opened(url, schema) as store:
            if dry_run:
                return await _count_ended(store, created_before)
            with progress("Deleting runs"):
                return await store.purge_runs(created_before=created_before)

    if not dry_run:
        confirm(
            f"This deletes the runs in {display_url(url)} that were created before "
            f"{created_before:%Y-%m-%d %H:%M:%S} UTC and have ended.",
            yes=yes,
        )
    count = run(work())
    if as_json:
        deleted = 0 if dry_run else count
        print_data(json.dumps({"deleted": deleted, "found": count, "dry_run": dry_run}))
    else:
        print_message(f"{counted(count, 'run')} {'would be ' if dry_run else ''}deleted.")


async def _count_ended(store: ResumableWorkflowStore, created_before: datetime) -> int:
    from ..copying import summaries

    count = 0
    with progress("Counting runs") as advance:
        async for summary in summaries(store, created_before=created_before):
            if all(status.is_terminal for status in summary.step_counts):
                count += 1
                advance(1)
    return count
