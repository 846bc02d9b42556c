"""Digests of stores, and how a run differs from its copy."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ..store import RunSnapshot

__all__ = ["WRITTEN", "Comparison", "Copied", "Digest", "Fingerprint", "Outcome", "compare"]


class Outcome(StrEnum):
    """How a run at the destination compared with the source, and so what was done about it."""

    SAME = "same"
    NEW = "new"
    CHANGED = "changed"
    NEWER = "newer"
    EXTRA = "extra"


WRITTEN = (Outcome.NEW, Outcome.CHANGED)
"""The outcomes after which the run is written."""


class Copied(NamedTuple):
    """The result of copying or comparing one run.

    Attributes:
        run_task_id: the run.
        outcome: `SAME`: both sides were equal. `NEW`: the destination lacked the run.
            `CHANGED`: the destination differed. New and changed runs are written, unless the
            stores are only compared. `NEWER`: a time of the destination's run or steps is
            later than every time at the source, or the destination has a step that the source
            lacks. `EXTRA`: the source lacks the run. Newer and extra runs are left alone.
        steps: the number of its steps, at the source if the run exists there.
    """

    run_task_id: str
    outcome: Outcome
    steps: int


@dataclass
class Digest:
    """A summary of a store's contents. Stores with the same contents have equal digests.

    Attributes:
        runs: the number of runs.
        steps: the number of steps.
        sha256: The hexadecimal SHA-256 of the concatenated SHA-256 sums of all runs, newest
            first. The sum of a run covers its wire form and that of each of its steps in
            order, each followed by a line feed.
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
    """The result of comparing, or copying, all runs of two stores.

    Attributes:
        source: the contents of the source.
        destination: the contents of the destination.
        outcomes: the number of runs by outcome.
        passes: the number of passes over both stores. The digests and the outcomes `SAME`,
            `NEWER` and `EXTRA` are those of the last pass, `NEW` and `CHANGED` the sums of
            all passes.
        complete: whether the last pass had nothing to write, so that the digests describe the
            present contents of both stores.
    """

    source: Digest = field(default_factory=Digest)
    destination: Digest = field(default_factory=Digest)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    passes: int = 1
    complete: bool = True

    @property
    def agree(self) -> bool:
        """Whether both stores have the same contents."""
        return self.complete and self.source.sha256 == self.destination.sha256


_OBJECT_BYTES = 4_000
"""The memory of a state beside its values, rounded up; each side of a copy holds one."""


class Fingerprint(NamedTuple):
    """The parts of a run that a comparison needs, without its values.

    Runs are compared by the hashes of their wire form, not as objects: in Python `1`, `1.0`
    and `True` are equal, and so are dicts that differ in the order of their keys.

    Attributes:
        digest: the arguments of `Digest.add`.
        lines: the hashes of the run and of its steps.
        step_ids: the ids of the steps in order.
        latest: the latest time of the run and its steps.
        size: the memory of the states in bytes: that of the wire form, and of the objects.
    """

    digest: tuple[int, bytes]
    lines: list[bytes]
    step_ids: list[str]
    latest: datetime
    size: int

    @classmethod
    def of(cls, snapshot: RunSnapshot) -> Fingerprint:
        run, steps = snapshot
        whole = hashlib.sha256()
        lines = []
        size = 0
        for state in (run, *steps):
            line = state.model_dump_json().encode()
            whole.update(line)
            whole.update(b"\n")
            lines.append(hashlib.sha256(line).digest())
            size += len(line)
        times = [run.created_at, run.updated_at]
        times += [time for step in steps for time in (step.started_at, step.completed_at) if time]
        step_ids = [step.step_id for step in steps]
        size += _OBJECT_BYTES * len(lines)
        return cls((len(steps), whole.digest()), lines, step_ids, max(times), size)


def compare(source: Fingerprint | None, destination: Fingerprint | None) -> Outcome:
    """Return how a run at the destination compares with the source; None is a missing run."""
    if source is None:  # extra, or deleted on both sides since it was listed
        return Outcome.SAME if destination is None else Outcome.EXTRA
    if destination is None:
        return Outcome.NEW
    if source.digest == destination.digest:
        return Outcome.SAME
    # Not every writer sets the times of a step, and a run never loses one.
    has_more = not set(destination.step_ids) <= set(source.step_ids)
    return Outcome.NEWER if has_more or destination.latest > source.latest else Outcome.CHANGED
