"""Copies runs from one store to another, and compares the two.

All access goes through the store interface, so any two stores will do. A run is read in one
snapshot and written step by step, in order: a concurrent reader of the destination may see
its first steps only. Claims are not copied, since a token is valid only in its own database.
Copying does not stop programs that drive a run on either side.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import datetime
from typing import NamedTuple

from ..state import RunSummary
from ..store import ResumableWorkflowStore, RunSnapshot
from ..validation import MAX_LIMIT
from .comparison import WRITTEN, Comparison, Copied, Digest, Fingerprint, Outcome, compare

__all__ = ["Comparison", "Copied", "Digest", "Outcome", "copy_runs", "put_run", "summaries"]

_MAX_TASKS = 64
_MAX_READS = 4
_MAX_BYTES = 64 * 2**20
_MAX_PASSES = 5

Progress = Callable[[Copied], None]


async def put_run(store: ResumableWorkflowStore, snapshot: RunSnapshot) -> Copied:
    """Make a run in a store equal to a snapshot, with its steps in the snapshot's order.

    Repeating the call is safe, also after a crash half-way. An equal run is not written to. A
    run whose steps are in another order is deleted first.

    Returns:
        The outcome. After `SAME`, `NEW` and `CHANGED` the run equals the snapshot; a `NEWER`
        run is left alone.
    """
    source = Fingerprint.of(snapshot)
    destination = await _read(store, snapshot.run.run_task_id)
    outcome = compare(source, destination)
    if outcome in WRITTEN:
        await _write(store, snapshot, source, destination)
    return Copied(snapshot.run.run_task_id, outcome, len(snapshot.steps))


async def copy_runs(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    *,
    write: bool = True,
    on_run: Progress = lambda _: None,
    on_pass: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Copy all runs with their steps, or only compare them.

    Passes over both stores until a pass has nothing to write, at most five times: runs that
    are written at the source meanwhile are found by the next pass, and the last pass proves
    the result. If interrupted, it leaves complete runs, except at most 64 that lack steps; a
    second call continues. It never deletes a run that the source lacks, and never writes to
    a run that is newer at the destination.

    Args:
        source: the store to read from. It is not written to.
        destination: the store to write to.
        write: whether to write. If false, one pass compares the two stores.
        on_run: called with the result of each run, in every pass.
        on_pass: called with the number of each pass when it begins, starting at 1.

    Returns:
        The contents of both stores and the number of runs by outcome. The stores agree unless
        runs are newer or extra at the destination, or programs keep writing to the source.
    """
    written: Counter[Outcome] = Counter()
    for number in range(1, _MAX_PASSES + 1):
        on_pass(number)
        comparison = Comparison(passes=number)
        await _pass(source, destination, comparison, write, on_run)
        if not write:
            return comparison
        written_now = Counter({key: comparison.outcomes.pop(key, 0) for key in WRITTEN})
        written += written_now
        comparison.complete = not written_now.total()
        if comparison.complete:
            break
    comparison.outcomes += written
    return comparison


async def summaries(
    store: ResumableWorkflowStore, *, created_before: datetime | None = None
) -> AsyncGenerator[RunSummary]:
    """Iterate over all runs, or those created before a time, newest first, page by page."""
    cursor: str | None = None
    while True:
        page = await store.list_runs(created_before=created_before, limit=MAX_LIMIT, cursor=cursor)
        for run in page.runs:
            yield run
        cursor = page.next_cursor
        if cursor is None:
            return


# -- implementation --------------------------------------------------------------------


class MemoryBudget:
    """Bounds the memory of runs that were read and not yet written.

    The size of a run is known only after reading it, so at most 4 runs are read at a time,
    and none while more than 64 MiB are reserved.
    """

    def __init__(self) -> None:
        self._reads = asyncio.Semaphore(_MAX_READS)
        self._reserved = 0
        self._released = asyncio.Event()

    @asynccontextmanager
    async def read_slot(self) -> AsyncGenerator[None]:
        """Wait for one of the slots for reading, and occupy it within the block."""
        async with self._reads:
            while self._reserved > _MAX_BYTES:
                self._released.clear()
                await self._released.wait()
            yield

    @contextmanager
    def reserve(self, size: int) -> Generator[None]:
        """Reserve bytes within the block, in which no other slot may be waited for."""
        self._reserved += size
        try:
            yield
        finally:
            self._reserved -= size
            self._released.set()


class _Pair(NamedTuple):
    """A run as listed by one store or by both."""

    run_task_id: str
    steps: int
    at_source: bool
    at_destination: bool


class _Result(NamedTuple):
    copied: Copied | None
    source: tuple[int, bytes] | None
    destination: tuple[int, bytes] | None


async def _pass(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    comparison: Comparison,
    write: bool,
    on_run: Progress,
) -> None:
    window: deque[tuple[_Pair, asyncio.Task[_Result]]] = deque()
    budget = MemoryBudget()

    async def settle() -> None:
        pair, task = window.popleft()
        result = await task
        if pair.at_source and result.source is not None:
            comparison.source.add(*result.source)
        if pair.at_destination and result.destination is not None:
            comparison.destination.add(*result.destination)
        if result.copied is not None:
            comparison.outcomes[result.copied.outcome] += 1
            on_run(result.copied)

    def is_full(pair: _Pair) -> bool:
        # A run listed twice is processed twice, one after the other: writes must not mix.
        return len(window) >= _MAX_TASKS or any(
            other.run_task_id == pair.run_task_id for other, _ in window
        )

    try:
        async with aclosing(_pairs(source, destination)) as pairs:
            async for pair in pairs:
                while window and is_full(pair):
                    await settle()
                task = asyncio.create_task(_process(source, destination, pair, write, budget))
                window.append((pair, task))
            while window:
                await settle()
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)


async def _pairs(
    source: ResumableWorkflowStore, destination: ResumableWorkflowStore
) -> AsyncGenerator[_Pair]:
    """Merge both listings, newest first. A run with two creation times is listed twice."""
    async with (
        aclosing(summaries(source)) as source_runs,
        aclosing(summaries(destination)) as destination_runs,
    ):
        left = await anext(source_runs, None)
        right = await anext(destination_runs, None)
        while listed := [run for run in (left, right) if run is not None]:
            run = max(listed, key=_position)
            at_source = left is not None and _position(left) == _position(run)
            at_destination = right is not None and _position(right) == _position(run)
            yield _Pair(run.run_task_id, run.step_counts.total(), at_source, at_destination)
            if at_source:
                left = await anext(source_runs, None)
            if at_destination:
                right = await anext(destination_runs, None)


def _position(run: RunSummary) -> tuple[datetime, str]:
    return run.created_at, run.run_task_id


async def _process(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    pair: _Pair,
    write: bool,
    budget: MemoryBudget,
) -> _Result:
    with ExitStack() as reservation:
        async with budget.read_slot():
            # Sequentially, so that the values of only one side are in memory.
            existing = await _read(destination, pair.run_task_id)
            snapshot = await source.load_run(pair.run_task_id)
            wanted = None if snapshot is None else Fingerprint.of(snapshot)
            outcome = compare(wanted, existing)
            copied: Copied | None = Copied(pair.run_task_id, outcome, pair.steps)
            if snapshot is None or wanted is None or not write or outcome not in WRITTEN:
                if wanted is not None and not pair.at_source:
                    copied = None  # reported by the pair at the source
                return _Result(copied, wanted and wanted.digest, existing and existing.digest)
            reservation.enter_context(budget.reserve(wanted.size))
        await _write(destination, snapshot, wanted, existing)
    return _Result(copied, None, None)  # the digests are those of the next pass


async def _read(store: ResumableWorkflowStore, run_task_id: str) -> Fingerprint | None:
    snapshot = await store.load_run(run_task_id)
    return None if snapshot is None else Fingerprint.of(snapshot)


async def _write(
    store: ResumableWorkflowStore,
    snapshot: RunSnapshot,
    wanted: Fingerprint,
    existing: Fingerprint | None,
) -> None:
    run, steps = snapshot
    if existing is not None and wanted.step_ids[: len(existing.step_ids)] != existing.step_ids:
        await store.delete_run(run.run_task_id)
        existing = None
    equal_lines = set() if existing is None else set(existing.lines)
    run_line, *step_lines = wanted.lines
    if run_line not in equal_lines:
        await store.create_run(run)
    for step, line in zip(steps, step_lines, strict=True):
        if line not in equal_lines:
            await store.upsert_step(run.run_task_id, step)
