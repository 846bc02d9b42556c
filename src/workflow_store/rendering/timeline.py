"""What a timeline of a run shows, whatever draws it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..state import TaskStatus, WorkflowStepState
from ..store import RunSnapshot
from .graph import Graph

__all__ = ["Bar", "Tick", "Timeline", "clock", "coarse", "human", "timeline"]

_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)

_TICK_STEPS = [
    *(timedelta(milliseconds=each) for each in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(_SECOND * each for each in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * each for each in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * each for each in (1, 2, 3, 6, 12)),
    *(_DAY * each * 10**power for power in range(7) for each in (1, 2, 5)),
]


@dataclass(frozen=True)
class Bar:
    """A step on the timeline.

    Attributes:
        step: the step.
        begin: where its bar begins; None where the step has no times.
        end: where it ends, not before `begin`; the same where the bar is a mere mark.
        goes_on: whether the step has not ended, so that its bar ends at the present.
        took: how long the step took, or has taken up to now; None where that is unknown.
        unmet: the ids of what a pending step depends on that has not completed.
        oddity: what is wrong with its times, `""` where nothing is.
    """

    step: WorkflowStepState
    begin: datetime | None
    end: datetime | None
    goes_on: bool
    took: timedelta | None
    unmet: tuple[str, ...]
    oddity: str

    @property
    def note(self) -> str:
        """What the step waits for, and what is odd about it; `""` where there is nothing."""
        notes = []
        asks = self.step.status is TaskStatus.INPUT_REQUIRED
        if not self.step.status.is_terminal and (asks or self.step.wait_task_id is not None):
            notes.append(f"waits for {self.step.wait_task_id or 'input'}")
        elif self.unmet:
            notes.append(f"after {', '.join(self.unmet)}")
        if self.oddity:
            notes.append(self.oddity)
        return "; ".join(notes)

    @property
    def error_line(self) -> str:
        """The first line of the step's error that is not blank; `""` where it has none."""
        if self.step.error is None:
            return ""
        return self.step.error.strip().partition("\n")[0] or "an error without a text"


@dataclass(frozen=True)
class Tick:
    """A mark on the axis: where it is, from 0 to 1, and the time since the beginning."""

    at: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """The bars of a run, in the order of its steps, and the span that holds them all.

    Attributes:
        bars: a bar for each step.
        begin: the creation of the run or the first time of a step, whichever is earlier; None
            where no step has a time.
        end: the last time of a step; the present, where a step goes on. Not before `begin`.
    """

    bars: list[Bar]
    begin: datetime | None
    end: datetime | None

    @property
    def span(self) -> timedelta:
        """How long the run has been under way."""
        return self.end - self.begin if self.begin and self.end else timedelta()

    def at(self, moment: datetime) -> float:
        """Tell where a moment is on the axis, from 0 to 1."""
        if self.begin is None or not self.span:
            return 0.0
        return min(max((moment - self.begin) / self.span, 0.0), 1.0)

    def ticks(self, at_most: int) -> list[Tick]:
        """Give round times since the beginning, the first of them 0.

        Args:
            at_most: how many there may be beside the first.
        """
        return list(self._ticks(at_most))

    def _ticks(self, at_most: int) -> Iterator[Tick]:
        yield Tick(0.0, "0")
        if not self.span:
            return
        step = next(step for step in _TICK_STEPS if self.span // step <= at_most)
        for index in range(1, self.span // step + 1):
            yield Tick(step * index / self.span, human(step * index, brief=True))


def timeline(snapshot: RunSnapshot, now: datetime, found: Graph | None) -> Timeline:
    """Lay out the steps of a run in time.

    A bar goes from `started_at` to `completed_at`, or to now while the step has not ended.
    What has one time only is a mark there.

    Args:
        snapshot: the run and its steps.
        now: the present, aware.
        found: its dependencies, where there are any.
    """
    unmet: dict[str, tuple[str, ...]] = {}
    if found is not None:
        unmet = {
            node.step_id: tuple(need.step_id for need in found.unmet(node))
            for node in found.nodes
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
    oddity = ""
    if begin is None:
        pass
    elif completed is None:
        end = begin if ended else max(begin, now)
        if ended:
            oddity = f"{step.status} at a time that was not noted"
        elif now < begin:
            oddity = f"starts {human(begin - now)} from now, by this clock"
        else:
            took = now - begin
    elif started is None:
        oddity = "has an end, but no start"
    elif completed < started:
        end = begin
        oddity = f"ended {human(started - completed)} before it started"
    else:
        took = completed - started
        if not ended:
            oddity = f"has an end, but is {step.status}"
    return Bar(
        step=step,
        begin=begin,
        end=end,
        goes_on=begin is not None and completed is None and not ended,
        took=took,
        unmet=unmet,
        oddity=oddity,
    )


def human(duration: timedelta, *, brief: bool = False) -> str:
    """Write a duration as a person does: `1.2 s`, `3 min 05 s`, `2 d 4 h`.

    Args:
        duration: what to write; a negative one is written with a minus.
        brief: leave out what is zero, as for a round number: `2 s`, `3 min`, `2 d`.
    """
    if duration < timedelta():
        return f"-{human(-duration, brief=brief)}"
    if not duration:
        return "0 s"
    seconds = duration / _SECOND
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.{0 if brief or milliseconds >= 9.995 else 2}f} ms"
    if seconds < 59.95:
        return f"{seconds:.{0 if brief else 1}f} s"
    many, rest = divmod(round(seconds), 60)
    large, small, width = "min", "s", 2
    if many >= 60:
        many, rest = divmod(round(duration / _MINUTE), 60)
        large, small = "h", "min"
    if large == "h" and many >= 24:
        many, rest = divmod(round(duration / _HOUR), 24)
        large, small, width = "d", "h", 1
    return f"{many} {large}" if brief and not rest else f"{many} {large} {rest:0{width}} {small}"


def coarse(duration: timedelta) -> str:
    """Write a duration in its largest unit, cut: `41 s`, `3 min`, `2 d`."""
    if duration < timedelta():
        return f"-{coarse(-duration)}"
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if duration >= unit:
            return f"{duration // unit} {name}"
    return f"{duration // _SECOND} s"


def clock(moment: datetime, timespec: str = "seconds") -> str:
    """Write a moment in UTC, as exactly as the name of `datetime.isoformat` says."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', timespec)} UTC"
