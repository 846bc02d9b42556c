"""What happened in a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..history import Violation

__all__ = ["Result"]


@dataclass(slots=True)
class Result:
    """What happened in a round or a scenario, or in several.

    Attributes:
        writes: acknowledged writes.
        calls: all calls.
        errors: calls that ended with an error, by its name.
        faults: the faults that happened.
        met: calls that ended during a fault, or until all processes went on.
        missed: faults for which there was no occasion.
        violations: what no correct store could have answered.
        undocumented: errors that the package does not document.
        hangs: calls and processes that did not end, by name.
        notes: what else was counted.
        seconds: how long it took.
        interrupted: whether not all rounds were run.
    """

    writes: int = 0
    calls: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    undocumented: Counter[str] = field(default_factory=Counter)
    hangs: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether a promise was not kept."""
        return bool(self.violations or self.undocumented or self.hangs)

    def add(self, other: Result) -> None:
        """Add what happened in another round."""
        self.writes += other.writes
        self.calls += other.calls
        self.seconds += other.seconds
        self.violations += other.violations
        for name in ("errors", "faults", "met", "missed", "undocumented", "hangs", "notes"):
            getattr(self, name).update(getattr(other, name))

    def as_json(self) -> dict[str, object]:
        """Return the counts."""
        return {
            "writes": self.writes,
            "calls": self.calls,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 1),
            "errors": self.errors,
            "faults": self.faults,
            "calls that ended during a fault": self.met,
            "missed": self.missed,
            "violations": Counter(str(violation.rule) for violation in self.violations),
            "undocumented": self.undocumented,
            "hangs": self.hangs,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return (
            f"{self.writes:>9,} writes {self.calls:>9,} calls {self.faults.total():>4} faults "
            f"{len(self.violations):>3} violations {self.undocumented.total():>3} undocumented "
            f"{self.hangs.total():>2} hangs {self.seconds:>6.1f} s"
        )
