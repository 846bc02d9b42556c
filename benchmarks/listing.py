"""The latency of a page of runs, in a small and in a large table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from workflow_store import ResumableWorkflowStore, open_store

from .fill import Table, fill, time_encoder
from .listing_tables import RunTable, Selection, selections
from .servers import DATABASES, Servers
from .subjects.raw import RUN_COLUMNS, STEP_COLUMNS
from .timing import median_ms, progress, turns

__all__ = ["LIMIT", "ListingResult", "measure_listing"]

LIMIT = 50
DEEP_PAGE = 1_000
MAX_LIMIT = 1_000


@dataclass
class ListingResult:
    """One page of one filter in one table.

    Attributes:
        database: The kind of database.
        runs: Number of runs in the table.
        filter: The filter's label.
        page: "first" or "deep".
        skipped: Number of runs before the page.
        p50_ms: The median latency of each round.
    """

    database: str
    runs: int
    filter: str
    page: str
    skipped: int
    p50_ms: list[float] = field(default_factory=list)


async def measure_listing(
    servers: Servers, sizes: tuple[int, int], *, rounds: int, seconds: float
) -> list[ListingResult]:
    """List pages without a filter and with each filter alone.

    Args:
        servers: Where to create the databases.
        sizes: Numbers of runs in their tables.
        rounds: Number of medians to take.
        seconds: How long to repeat each page in a round.
    """
    calls: list[tuple[ListingResult, Callable[[], Awaitable[object]]]] = []
    stores: list[ResumableWorkflowStore] = []
    try:
        for count in sizes:
            table = RunTable(count)
            pages = _pages(table, RunTable(max(sizes)))
            for database in DATABASES:
                url = await servers.url(database, f"listing_{count}")
                encode = time_encoder(url)
                runs = Table("runs", RUN_COLUMNS, table.runs(encode))
                steps = Table("steps", STEP_COLUMNS, table.steps(encode))
                await fill(url, [runs, steps], indexes_last=True)
                stores.append(open_store(url))
                await stores[-1].open()
                for selection, page, skipped in pages:
                    result = ListingResult(database, count, selection.name, page, skipped)
                    calls.append((result, await _page(stores[-1], table, selection, skipped)))
            progress(f"filled tables of {count:,} runs")
        for round_, (result, call) in turns(calls, rounds):
            ms = await median_ms(call, seconds=seconds)
            if round_:
                result.p50_ms.append(ms)
    finally:
        for store in stores:
            await store.close()
    return [result for result, _ in calls]


def _pages(table: RunTable, largest: RunTable) -> list[tuple[Selection, str, int]]:
    """Return each filter with its first page and its thousandth, or its last full page."""
    pages: list[tuple[Selection, str, int]] = []
    for selection, in_largest in zip(selections(table), selections(largest), strict=True):
        pages.append((selection, "first", 0))
        if in_largest.skipped(largest, limit=LIMIT, page=DEEP_PAGE):
            pages.append((selection, "deep", selection.skipped(table, limit=LIMIT, page=DEEP_PAGE)))
    return pages


async def _page(
    store: ResumableWorkflowStore, table: RunTable, selection: Selection, skipped: int
) -> Callable[[], Awaitable[list[str]]]:
    """Return a function that reads the page, after checking that it reads the right one."""
    cursor, missing = None, skipped
    while missing:
        before = await store.list_runs(
            **selection.filters, limit=min(missing, MAX_LIMIT), cursor=cursor
        )
        missing -= len(before.runs)
        cursor = before.next_cursor

    async def read() -> list[str]:
        page = await store.list_runs(**selection.filters, limit=LIMIT, cursor=cursor)
        return [run.run_task_id for run in page.runs]

    expected = selection.numbers(table, skip=skipped, count=LIMIT)
    if await read() != [table.run_id(number) for number in expected]:
        raise RuntimeError(f"{selection.name}: the page has other runs than expected")
    return read
