"""Generates the images of the docs. It needs Chromium: `python docs/pictures.py`.

The run is invented: an agent writes a report, a fetch failed and was repeated, and a person has to
approve before anything is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Browser, async_playwright
from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme
from sqlalchemy import make_url

from workflow_store import (
    JsonValue,
    RunPage,
    RunSnapshot,
    RunSummary,
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
    copying,
    open_store,
)
from workflow_store.cli.findings import FindingsTable
from workflow_store.rendering.html import page
from workflow_store.rendering.terminal import run_view, runs_table
from workflow_store.sql.doctor import Finding, examine

IMAGES = Path(__file__).parent / "images"
MAX_BYTES = 300_000
NOW = datetime(2026, 3, 12, 9, 46, 12, tzinfo=UTC)
CREATED = NOW - timedelta(minutes=4, seconds=26)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

COLOURS = [
    (37, 42, 48), (255, 128, 128), (79, 192, 138), (234, 176, 76),
    (121, 174, 252), (192, 162, 214), (98, 196, 204), (220, 223, 227),
]  # fmt: skip
THEME = TerminalTheme((25, 28, 32), (231, 233, 236), COLOURS, COLOURS)

DEFINITION: JsonValue = {
    "name": "market_report",
    "steps": [
        {"id": "plan"},
        {"id": "search_news", "depends_on": ["plan"]},
        {"id": "search_filings", "depends_on": ["plan"]},
        {"id": "fetch_prices", "depends_on": ["plan"], "on_error": "retry_prices"},
        {"id": "retry_prices", "depends_on": ["fetch_prices"]},
        {"id": "summarise", "depends_on": ["search_news", "search_filings"]},
        {"id": "forecast", "depends_on": ["retry_prices"]},
        {"id": "draft", "depends_on": ["summarise", "forecast"]},
        {"id": "translate", "depends_on": ["draft"]},
        {"id": "approve", "depends_on": ["draft"]},
        {"id": "send", "depends_on": ["approve", "translate"]},
        {"id": "archive", "depends_on": "send"},
    ],
}


def step(
    step_id: str,
    status: TaskStatus,
    started_s: float | None = None,
    ended_s: float | None = None,
    *,
    result: JsonValue = None,
    error: str | None = None,
    wait_task_id: str | None = None,
) -> WorkflowStepState:
    """Return a step; its times are seconds since the creation of the run."""
    return WorkflowStepState(
        step_id=step_id,
        status=status,
        result=result,
        error=error,
        started_at=None if started_s is None else CREATED + timedelta(seconds=started_s),
        completed_at=None if ended_s is None else CREATED + timedelta(seconds=ended_s),
        wait_task_id=wait_task_id,
    )


def demo() -> RunSnapshot:
    """Return the example run."""
    run = WorkflowExecutionState(
        run_task_id="run-7c2e41f0-market-report",
        agent_id="research-agent",
        thread_id="thread-2291",
        user_id="ines@example.com",
        workspace_id="markets",
        entry_point="plan",
        definition=DEFINITION,
        input={"question": "How will tin prices move until summer?", "language": "de"},
        context={"sources": 14, "currency": "EUR", "tone": "sober", "budget_left": 0.37},
        created_at=CREATED,
        updated_at=NOW - timedelta(seconds=9),
    )
    done, failed = TaskStatus.COMPLETED, TaskStatus.FAILED
    steps = [
        step("plan", done, 0.4, 6.1, result={"queries": 5, "sources": ["news", "filings"]}),
        step("search_news", done, 6.3, 31.8, result={"articles": 41, "kept": 9}),
        step("search_filings", done, 6.3, 52.4, result={"filings": 12, "kept": 5}),
        step(
            "fetch_prices", failed, 6.4, 21.4,
            error="TimeoutError: prices.example.com did not answer within 15 s\n"
            "  attempt 1 of 1, GET /v2/tin/daily?from=2021-01-01",
        ),
        step(
            "retry_prices", done, 60.0, 64.3,
            result={"rows": 1303, "first": "2021-01-04", "last": "2026-03-11"},
        ),
        step(
            "summarise", done, 52.6, 96.0,
            result={"summary": "Supply stays tight: two smelters are down until May."},
        ),
        step("forecast", done, 64.5, 83.9, result={"low": 28400, "mid": 30150, "high": 33900}),
        step("draft", done, 96.2, 141.7, result={"words": 812, "file": "report-v1.md"}),
        step("translate", TaskStatus.RUNNING, 141.9),
        step("approve", TaskStatus.INPUT_REQUIRED, 142.0, wait_task_id="task-approve-58"),
        step("send", TaskStatus.PENDING),
    ]  # fmt: skip
    return RunSnapshot(run, steps)


def resumed() -> RunSnapshot:
    """Make a run whose process was killed after 16 s, and which was resumed after 40 s."""
    done = TaskStatus.COMPLETED
    steps = [
        step("plan", done, 0.2, 4.1),
        step("search", done, 4.3, 15.8),
        step("prices", done, 4.3, 9.6),
        step("draft", done, 40.0, 57.2),
        step("approve", TaskStatus.INPUT_REQUIRED, 57.4, wait_task_id="approval-7"),
    ]
    run = WorkflowExecutionState(
        run_task_id="report-42",
        agent_id="research-agent",
        thread_id="thread-2291",
        user_id="ines",
        definition={"steps": [state.step_id for state in steps]},
        created_at=CREATED,
        updated_at=CREATED + timedelta(seconds=57.4),
    )
    return RunSnapshot(run, steps)


def demo_page() -> RunPage:
    """Return a page of runs in which the example run is the second newest."""

    def summary(
        run_task_id: str, place: tuple[str, str, str, str | None], age: timedelta, **counts: int
    ) -> RunSummary:
        agent_id, thread_id, user_id, workspace_id = place
        return RunSummary(
            run_task_id=run_task_id,
            agent_id=agent_id,
            thread_id=thread_id,
            user_id=user_id,
            workspace_id=workspace_id,
            created_at=NOW - age,
            updated_at=NOW - age / 3,
            step_counts=Counter({TaskStatus(status): count for status, count in counts.items()}),
        )

    minutes, hours, days = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
    ines, tom = "ines@example.com", "tom@example.com"
    return RunPage(
        [
            summary(
                "run-81d09b3a-refund", ("billing-agent", "thread-2294", tom, "billing"),
                timedelta(seconds=41), completed=2, running=1,
            ),
            summary(
                demo().run.run_task_id, ("research-agent", "thread-2291", ines, "markets"),
                NOW - CREATED, completed=7, failed=1, running=1, input_required=1, pending=1,
            ),
            summary(
                "run-6ab8c7d2-ticket-4410", ("support-agent", "thread-2290", tom, None),
                23 * minutes, completed=6,
            ),
            summary(
                "run-59f31e08-ticket-4407", ("support-agent", "thread-2287", tom, None),
                2 * hours, completed=3, failed=2, canceled=2,
            ),
            summary(
                "run-4e77a915-market-report", ("research-agent", "thread-2270", ines, "markets"),
                9 * hours, completed=12,
            ),
            summary(
                "run-3b0d6c44-invoices", ("billing-agent", "thread-2188", tom, "billing"),
                2 * days, completed=214, input_required=3,
            ),
        ],
        "next",
    )  # fmt: skip


def save_terminal(name: str, command: str, *pictures: RenderableType, width: int = 100) -> None:
    """Save the output of a command on a terminal as an SVG."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    for picture in pictures:
        console.print(picture)
    svg = console.export_svg(title=command, theme=THEME, unique_id=name.partition(".")[0])
    # Rich links web fonts; an image in the docs must not request them.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    (IMAGES / name).write_text(svg, encoding="utf-8")


async def save_page(
    browser: Browser, file: Path, name: str, *, dark: bool = False, phone: bool = False
) -> None:
    """Save a screenshot of an HTML page."""
    context = await browser.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1160, "height": 900},
        device_scale_factor=2 if phone else 1.4,
        color_scheme="dark" if dark else "light",
    )
    tab = await context.new_page()
    await tab.goto(file.as_uri())
    await tab.locator("details.step", has_text="fetch_prices").first.locator("> summary").click()
    await tab.mouse.move(0, 0)
    await tab.screenshot(path=IMAGES / name, full_page=not phone)
    await context.close()
    size = (IMAGES / name).stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{name} has {size} bytes, more than {MAX_BYTES}")


async def examined(url: str) -> list[Finding]:
    """Return the findings for a database with some problems."""
    async with open_store(url) as store:
        await copying.put_run(store, demo())
        for run in ("run-81d09b3a-refund", demo().run.run_task_id):
            state = demo().run.model_copy(update={"run_task_id": run})
            await store.create_run(state)
            await store.claim_run(run, owner="worker-7", lease_s=0.001)
    with contextlib.closing(sqlite3.connect(str(make_url(url).database))) as file:
        file.execute("DROP INDEX ix_steps_wait_task_id")
    return [finding async for finding in examine(url)]


async def main() -> None:
    """Generate all images."""
    save_terminal(
        "runs-list.svg", "workflow-store runs list", runs_table(demo_page(), NOW), width=110
    )
    save_terminal(
        "runs-show.svg", f"workflow-store runs show {demo().run.run_task_id}",
        run_view(demo(), NOW),
    )  # fmt: skip
    save_terminal(  # narrow, so that a phone shows it too
        "resumed.svg", "workflow-store runs show report-42",
        run_view(resumed(), CREATED + timedelta(seconds=70)), width=56,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        findings = await examined(f"sqlite:///{folder}/runs.db")
        save_terminal("doctor.svg", "workflow-store doctor", FindingsTable(findings), width=110)
        file = Path(folder) / "page.html"
        file.write_text(page(demo(), NOW), encoding="utf-8")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            await save_page(browser, file, "page-light.png")
            await save_page(browser, file, "page-dark.png", dark=True)
            await save_page(browser, file, "page-phone.png", phone=True)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
