"""From one store to another: whole runs, and a digest of what each side holds.

Everything goes through the interface, so that any two stores will do. A run is read at one
moment and written step by step, in order: whoever reads it at the destination meanwhile may
see the first steps only. Claims are not copied, since a token is good in its own database
alone; nor does anything stop a program that drives a run on either side.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ..state import RunSummary
from ..store import ResumableWorkflowStore, RunSnapshot
from ..validation import MAX_LIMIT
from .memory_budget import MemoryBudget

__all__ = ["Comparison", "Copied", "Digest", "Outcome", "copy_runs", "put_run", "summaries"]

_RUNS_AT_ONCE = 64
_STEPS_AT_ONCE = 3_200
"""How much is looked at at a time; a run with more steps goes alone."""

_PASSES = 5


class Outcome(StrEnum):
    """How a run at the destination compares with the source, or what was done about it."""

    SAME = "same"
    NEW = "new"
    CHANGED = "changed"
    NEWER = "newer"
    EXTRA = "extra"


_WRITTEN = (Outcome.NEW, Outcome.CHANGED)


class Copied(NamedTuple):
    """What was found of one run, and done unless it was only compared.

    Attributes:
        run_task_id: the run.
        outcome: `SAME`, it was and is equal; `NEW`, the destination lacked it; `CHANGED`, it
            differed. What is new or changed is written. `NEWER`, the destination has a later
            time than the source anywhere in it, and `EXTRA`, the source lacks it: both are
            left alone.
        steps: how many steps it has, at the source where it is there.
    """

    run_task_id: str
    outcome: Outcome
    steps: int


@dataclass
class Digest:
    """What a store holds, as numbers that two stores have in common if they hold the same.

    Attributes:
        runs: how many runs.
        steps: how many steps.
        sha256: of all runs, newest first, the hexadecimal SHA-256 of their SHA-256 sums; and
            of a run, that of its wire form and of each of its steps' in order, a line feed
            after each.
    """

    runs: int = 0
    steps: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, steps: int, sha256: bytes) -> None:
        self.runs += 1
        self.steps += steps
        self._hash.update(sha256)


@dataclass
class Comparison:
    """What a walk over both stores found.

    Attributes:
        source: what the source holds.
        destination: what the destination holds.
        outcomes: how many runs had which outcome.
        passes: how many walks it took; the digests and outcomes `SAME`, `NEWER` and `EXTRA`
            are those of the last one, `NEW` and `CHANGED` those of all.
        complete: whether the last walk found nothing to write, so that the digests are of
            what both sides hold now.
    """

    source: Digest = field(default_factory=Digest)
    destination: Digest = field(default_factory=Digest)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    passes: int = 1
    complete: bool = True

    @property
    def agree(self) -> bool:
        """Whether both sides hold the same."""
        return self.complete and self.source.sha256 == self.destination.sha256


Progress = Callable[[Copied], None]


async def put_run(store: ResumableWorkflowStore, snapshot: RunSnapshot) -> Copied:
    """Make a run in a store equal to a snapshot, its steps in the order given.

    Repeating it, after a crash half-way too, leads to the same. A run that is equal is not
    written to. One that is there in another order, or with other steps, is deleted first.

    Returns:
        What was found: `SAME`, `NEW` or `CHANGED`, which are then equal to the snapshot; or
        `NEWER`, which is left alone.
    """
    wanted = _known(snapshot)
    there = await _read(store, snapshot.run.run_task_id)
    outcome = _compare(wanted, there)
    if outcome in _WRITTEN:
        await _write(store, snapshot, wanted, there)
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

    Walks over both stores until a walk finds nothing to write, at most five times: what
    was written at the source meanwhile is found by the next walk, and the last one is the
    proof. Stopped at any moment, it leaves whole runs and at most 64 that lack steps; a
    second call goes on. It never deletes a run that the source lacks, nor writes to one that is
    newer at the destination.

    Args:
        source: what to copy, only read.
        destination: where to.
        write: whether to write; otherwise one walk compares.
        on_run: is told of each run that was looked at, in every walk.
        on_pass: is told of each walk that begins, the first one being 1.

    Returns:
        What both sides hold. They agree unless a run is newer or extra at the destination,
        or the source is being written to all the time.
    """
    written: Counter[Outcome] = Counter()
    for number in range(1, _PASSES + 1):
        on_pass(number)
        comparison = Comparison(passes=number)
        await _walk(source, destination, comparison, write, on_run)
        if not write:
            return comparison
        found = Counter({each: comparison.outcomes.pop(each, 0) for each in _WRITTEN})
        written += found
        comparison.complete = not found.total()
        if comparison.complete:
            break
    comparison.outcomes += written
    return comparison


async def summaries(
    store: ResumableWorkflowStore, *, created_before: datetime | None = None
) -> AsyncGenerator[RunSummary]:
    """Give all runs, or all older ones, without their JSON values, newest first."""
    cursor: str | None = None
    while True:
        page = await store.list_runs(created_before=created_before, limit=MAX_LIMIT, cursor=cursor)
        for run in page.runs:
            yield run
        cursor = page.next_cursor
        if cursor is None:
            return


# -- inside ----------------------------------------------------------------------------


class _Visit(NamedTuple):
    """A run of one listing or of both."""

    run_task_id: str
    steps: int
    at_source: bool
    at_destination: bool


class _Seen(NamedTuple):
    copied: Copied | None
    source: tuple[int, bytes] | None
    destination: tuple[int, bytes] | None


async def _walk(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    comparison: Comparison,
    write: bool,
    on_run: Progress,
) -> None:
    window: deque[tuple[_Visit, asyncio.Task[_Seen]]] = deque()
    room = MemoryBudget()

    async def settle() -> None:
        visit, task = window.popleft()
        seen = await task
        if visit.at_source and seen.source is not None:
            comparison.source.add(*seen.source)
        if visit.at_destination and seen.destination is not None:
            comparison.destination.add(*seen.destination)
        if seen.copied is not None:
            comparison.outcomes[seen.copied.outcome] += 1
            on_run(seen.copied)

    def is_full(visit: _Visit) -> bool:
        return (
            len(window) >= _RUNS_AT_ONCE
            or sum(each.steps for each, _ in window) + visit.steps > _STEPS_AT_ONCE
            # One whose age differs is visited twice; its writes must not mix.
            or any(each.run_task_id == visit.run_task_id for each, _ in window)
        )

    try:
        async with aclosing(_visits(source, destination)) as visits:
            async for visit in visits:
                while window and is_full(visit):
                    await settle()
                looking = asyncio.create_task(_see(source, destination, visit, write, room))
                window.append((visit, looking))
            while window:
                await settle()
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)


async def _visits(
    source: ResumableWorkflowStore, destination: ResumableWorkflowStore
) -> AsyncGenerator[_Visit]:
    """Give the runs of both listings, newest first; a run whose age differs comes twice."""
    async with aclosing(summaries(source)) as here, aclosing(summaries(destination)) as there:
        left = await anext(here, None)
        right = await anext(there, None)
        while left is not None or right is not None:
            at_source = left is not None and (right is None or _place(left) >= _place(right))
            at_destination = right is not None and (left is None or _place(right) >= _place(left))
            runs = [run for run, at in ((left, at_source), (right, at_destination)) if run and at]
            steps = max(run.step_counts.total() for run in runs)
            yield _Visit(runs[0].run_task_id, steps, at_source, at_destination)
            if at_source:
                left = await anext(here, None)
            if at_destination:
                right = await anext(there, None)


def _place(run: RunSummary) -> tuple[datetime, str]:
    return run.created_at, run.run_task_id


class _Known(NamedTuple):
    """What is kept of a run that was read: its sums, which say more than the objects do.

    As objects, 1, 1.0 and True are equal, and so are objects of JSON in any order of keys.
    """

    sum: tuple[int, bytes]
    lines: list[bytes]
    order: list[str]
    latest: datetime
    size: int


def _known(snapshot: RunSnapshot) -> _Known:
    run, steps = snapshot
    whole = hashlib.sha256()
    lines = []
    size = 0
    for each in (run, *steps):
        line = each.model_dump_json().encode()
        whole.update(line)
        whole.update(b"\n")
        lines.append(hashlib.sha256(line).digest())
        size += len(line)
    times = [run.created_at, run.updated_at]
    times += [time for step in steps for time in (step.started_at, step.completed_at) if time]
    order = [step.step_id for step in steps]
    return _Known((len(steps), whole.digest()), lines, order, max(times), size)


async def _see(
    source: ResumableWorkflowStore,
    destination: ResumableWorkflowStore,
    visit: _Visit,
    write: bool,
    room: MemoryBudget,
) -> _Seen:
    with ExitStack() as held:
        async with room.reading():
            # One after the other: the destination's values are gone before the source's come.
            there = await _read(destination, visit.run_task_id)
            snapshot = await source.load_run(visit.run_task_id)
            wanted = None if snapshot is None else _known(snapshot)
            outcome = _compare(wanted, there)
            if snapshot is None or wanted is None or not write or outcome not in _WRITTEN:
                copied: Copied | None = Copied(visit.run_task_id, outcome, visit.steps)
                if wanted is not None and not visit.at_source:
                    copied = None  # its visit at the source tells
                sums = (None if side is None else side.sum for side in (wanted, there))
                return _Seen(copied, *sums)
            held.enter_context(room.holding(wanted.size))
        await _write(destination, snapshot, wanted, there)
    # Another walk follows, which sums up.
    return _Seen(Copied(visit.run_task_id, outcome, visit.steps), None, None)


async def _read(store: ResumableWorkflowStore, run_task_id: str) -> _Known | None:
    snapshot = await store.load_run(run_task_id)
    return None if snapshot is None else _known(snapshot)


def _compare(wanted: _Known | None, there: _Known | None) -> Outcome:
    if wanted is None:  # or deleted since it was listed
        return Outcome.SAME if there is None else Outcome.EXTRA
    if there is None:
        return Outcome.NEW
    if wanted.sum == there.sum:
        return Outcome.SAME
    return Outcome.NEWER if there.latest > wanted.latest else Outcome.CHANGED


async def _write(
    store: ResumableWorkflowStore, snapshot: RunSnapshot, wanted: _Known, there: _Known | None
) -> None:
    run, steps = snapshot
    if there is not None and wanted.order[: len(there.order)] != there.order:
        await store.delete_run(run.run_task_id)
        there = None
    if there is None:
        await store.create_run(run)
        for step in steps:
            await store.upsert_step(run.run_task_id, step)
        return
    equal = set(there.lines)
    run_line, *step_lines = wanted.lines
    if run_line not in equal:
        await store.create_run(run)
    for step, line in zip(steps, step_lines, strict=True):
        if line not in equal:
            await store.upsert_step(run.run_task_id, step)
