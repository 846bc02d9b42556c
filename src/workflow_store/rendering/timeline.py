"""The timeline of a run: a bar for each step, and the ticks of the axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..formatting import duration
from ..state import TaskStatus, WorkflowStepState
from ..store import RunSnapshot
from .graph import Graph

__all__ = ["Bar", "Tick", "Timeline", "format_duration", "format_time", "timeline"]

_TICK_STEPS = [
    *(timedelta(milliseconds=count) for count in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(timedelta(seconds=count) for count in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=count) for count in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=count) for count in (1, 2, 3, 6, 12)),
    *(timedelta(days=count * 10**power) for power in range(7) for count in (1, 2, 5)),
]


@dataclass(frozen=True)
class Bar:
    """A step on the timeline.

    Attributes:
        step: the step.
        begin: the start of its bar; None if the step has no times.
        end: the end of its bar, never before `begin`; equal to it if only one time is known.
        is_open: whether the step has not ended, so that its bar ends now.
        took: the duration of the step, up to now if it has not ended; None if unknown.
        unmet: the ids of the dependencies of a pending step that have not completed.
        problem: what is wrong with its times, or `""`.
    """

    step: WorkflowStepState
    begin: datetime | None
    end: datetime | None
    is_open: bool
    took: timedelta | None
    unmet: tuple[str, ...]
    problem: str

    @property
    def note(self) -> str:
        """What the step waits for, and what is wrong with its times; `""` if nothing."""
        notes = []
        needs_input = self.step.status is TaskStatus.INPUT_REQUIRED
        waits = needs_input or self.step.wait_task_id is not None
        if waits and not self.step.status.is_terminal:
            notes.append(f"waits for {self.step.wait_task_id or 'input'}")
        elif self.unmet:
            notes.append(f"after {', '.join(self.unmet)}")
        if self.problem:
            notes.append(self.problem)
        return "; ".join(notes)

    @property
    def error_line(self) -> str:
        """The first line of the step's error that is not blank; `""` if there is no error."""
        if self.step.error is None:
            return ""
        return self.step.error.strip().partition("\n")[0] or "an error without text"


@dataclass(frozen=True)
class Tick:
    """A tick of the axis: its position, from 0 to 1, and the time since the beginning."""

    at: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """The bars of a run and the span of the axis.

    Attributes:
        bars: a bar for each step, in the order of the steps.
        begin: the creation of the run or the first time of a step, whichever is earlier; None
            if no step has a time.
        end: the last time of a step, or now if a step has not ended; never before `begin`.
    """

    bars: list[Bar]
    begin: datetime | None
    end: datetime | None

    @property
    def span(self) -> timedelta:
        """The length of the axis."""
        return self.end - self.begin if self.begin and self.end else timedelta()

    def at(self, time: datetime) -> float:
        """Return the position of a time on the axis, from 0 to 1."""
        if self.begin is None or not self.span:
            return 0.0
        return min(max((time - self.begin) / self.span, 0.0), 1.0)

    def ticks(self, limit: int) -> Iterator[Tick]:
        """Yield ticks at round times since the beginning: one at 0, and up to `limit` more."""
        yield Tick(0.0, "0")
        if not self.span:
            return
        step = next(step for step in _TICK_STEPS if self.span // step <= limit)
        for index in range(1, self.span // step + 1):
            label = format_duration(step * index, brief=True)
            yield Tick(step * index / self.span, label)


def timeline(snapshot: RunSnapshot, now: datetime, dependencies: Graph | None) -> Timeline:
    """Return the timeline of a run.

    A bar goes from `started_at` to `completed_at`, or to now if the step has not ended.

    Args:
        snapshot: the run and its steps.
        now: the current time, aware.
        dependencies: the dependencies of the steps, if the definition has any.
    """
    unmet: dict[str, tuple[str, ...]] = {}
    if dependencies is not None:
        unmet = {
            node.step_id: tuple(need.step_id for need in dependencies.unmet(node))
            for node in dependencies.nodes
            if node.step is not None and node.step.status is TaskStatus.PENDING
        }
    bars = [_bar(step, now, unmet.get(step.step_id, ())) for step in snapshot.steps]
    begins = [bar.begin for bar in bars if bar.begin is not None]
    ends = [bar.end for bar in bars if bar.end is not None]
    if not begins:
        return Timeline(bars, None, None)
    begin = min(*begins, snapshot.run.created_at)
    return Timeline(bars, begin, max(ends))


def _bar(step: WorkflowStepState, now: datetime, unmet: tuple[str, ...]) -> Bar:
    started, completed, ended = step.started_at, step.completed_at, step.status.is_terminal
    begin, end = started or completed, completed
    took: timedelta | None = None
    problem = ""
    if begin is None:
        pass
    elif completed is None:
        end = begin if ended else max(begin, now)
        if ended:
            problem = f"{step.status} at an unknown time"
        elif now < begin:
            problem = f"starts in {format_duration(begin - now)} by this computer's clock"
        else:
            took = now - begin
    elif started is None:
        problem = "has an end time but no start time"
    elif completed < started:
        end = begin
        problem = f"ended {format_duration(started - completed)} before it started"
    else:
        took = completed - started
        if not ended:
            problem = f"has an end time, but its status is {step.status}"
    return Bar(
        step=step,
        begin=begin,
        end=end,
        is_open=begin is not None and completed is None and not ended,
        took=took,
        unmet=unmet,
        problem=problem,
    )


def format_duration(delta: timedelta, *, brief: bool = False) -> str:
    """Return a duration, as `formatting.duration` does."""
    return duration(delta.total_seconds(), brief=brief)


def format_time(time: datetime, timespec: str = "seconds") -> str:
    """Return a time in UTC, to the `timespec` of `datetime.isoformat`."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', timespec)} UTC"
