"""What a page of runs costs among few runs and among very many."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from workflow_store import ResumableWorkflowStore, open_store
from workflow_store.pagination import Listing

from .listing_tables import RunTable, Selection, fill_postgresql, fill_sqlite, selections
from .runner import median_ms, say
from .servers import Servers

__all__ = ["DEEP_PAGE", "LIMIT", "ListingResult", "measure_listing"]

LIMIT = 50
DEEP_PAGE = 1_000
_Call = Callable[[], Awaitable[object]]


@dataclass
class ListingResult:
    """One page of one filter in a table: a median of the latency per round.

    Attributes:
        database: which one.
        runs: how many runs the table has.
        filter: which ones are listed.
        page: the first or the deep one.
        skipped: how many runs come before the page.
        p50_ms: an entry per round.
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
    """List pages of tables of two sizes, with no filter and with each alone, in turns.

    Args:
        servers: where the databases are made.
        sizes: how many runs they have.
        rounds: how many medians to take.
        seconds: how long each page is read again and again in a round.
    """
    calls: list[tuple[ListingResult, _Call]] = []
    stores: list[ResumableWorkflowStore] = []
    try:
        for count in sizes:
            table = RunTable(count)
            pages = _pages(table, RunTable(max(sizes)))
            for database in ("SQLite", "PostgreSQL"):
                store = await _filled(servers, database, table)
                stores.append(store)
                await store.open()
                for selection, name, skipped in pages:
                    result = ListingResult(database, count, selection.name, name, skipped)
                    calls.append((result, await _checked(store, table, selection, skipped)))
            say(f"tables of {count:,} runs are filled")
        for round_ in range(rounds):
            order = calls.copy()
            random.Random(round_).shuffle(order)  # noqa: S311 - no secret
            for result, call in order:
                result.p50_ms.append(await median_ms(call, seconds))
    finally:
        for store in stores:
            await store.close()
    return [result for result, _ in calls]


def _pages(table: RunTable, largest: RunTable) -> list[tuple[Selection, str, int]]:
    """Give each filter with the first page, and with the deep one or the last full one."""
    pages: list[tuple[Selection, str, int]] = []
    for each, in_largest in zip(selections(table), selections(largest), strict=True):
        pages.append((each, "first", 0))
        if in_largest.skipped(largest, limit=LIMIT, page=DEEP_PAGE):
            skipped = each.skipped(table, limit=LIMIT, page=DEEP_PAGE)
            pages.append((each, "deep", skipped))
    return pages


async def _filled(servers: Servers, database: str, table: RunTable) -> ResumableWorkflowStore:
    name = f"listing_{table.count}"
    if database == "SQLite":
        file = await servers.sqlite_file(name, our_tables=True)
        await asyncio.to_thread(fill_sqlite, file, table)
        return open_store(f"sqlite:///{file}")
    url = await servers.postgres_database(name, our_tables=True)
    await fill_postgresql(url, table)
    return open_store(url)


async def _checked(
    store: ResumableWorkflowStore, table: RunTable, selection: Selection, skipped: int
) -> _Call:
    """Give what reads a page, after a look that it is the right one.

    The cursor to it is made, and not paged to.
    """
    cursor = None
    if skipped:
        (last,) = selection.found(table, skip=skipped - 1, count=1)
        nothing = dict.fromkeys(("step_status", "created_after", "created_before", "cursor"), None)
        listing = Listing.checked(**{**nothing, **selection.filters}, limit=LIMIT)
        cursor = listing.cursor((table.created_at(last), table.run_id(last)))

    async def read() -> list[str]:
        page = await store.list_runs(**selection.filters, limit=LIMIT, cursor=cursor)
        return [run.run_task_id for run in page.runs]

    expected = selection.found(table, skip=skipped, count=LIMIT)
    if await read() != [table.run_id(number) for number in expected]:
        raise RuntimeError(f"{selection.name}: not the runs that were asked for")
    return read
