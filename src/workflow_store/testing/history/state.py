"""The state of a run, and a call as the checker sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from .records import Operation

__all__ = ["ALL", "ANY", "CLAIM", "EXISTS", "FIRST_STEP", "ROW"]
__all__ += ["Call", "Change", "Insertion", "State", "Step", "absent"]

ANY: Final = -1
"""A value that is not known: after a violation, or the end of a lease of an unknown claim."""

NO_TOKEN: Final = 0
UNKNOWN_TOKEN: Final = -2
"""That of a claim whose caller never received it."""

EXISTS, ROW, CLAIM, FIRST_STEP = 1, 2, 4, 8
"""What a call reads or writes, as bits; each step has one of its own."""
ALL: Final = -1


class Step(NamedTuple):
    """The place of a step among those of its run, and the number of a value of it."""

    place: int
    value: int


class Insertion(NamedTuple):
    """The first write of a step, and when it was called."""

    place: int
    began: int
    ended: float


class State(NamedTuple):
    """A run at one moment. Values are numbers, equal for equal values; 0 is none.

    `order` is that of the steps which a reader has seen.
    """

    exists: bool
    fields: int
    context: int
    steps: tuple[int, ...]
    order: tuple[int, ...]
    inserted: frozenset[Insertion]
    token: int
    owner: str
    expires_at: int
    last_token: int

    def with_step(self, step: Step) -> State:
        """Return the state with another value of a step."""
        place, value = step
        return self._replace(steps=(*self.steps[:place], value, *self.steps[place + 1 :]))

    def existing(self) -> State:
        """Return the state of a run that exists, with unknown values if it did not."""
        return self if self.exists else self._replace(exists=True, fields=ANY, context=ANY)


def absent(steps: int, last_token: int = 0) -> State:
    """Return the state of a run that does not exist, of which this many steps are known."""
    return State(False, 0, 0, (0,) * steps, (), frozenset(), NO_TOKEN, "", ANY, last_token)


Change: TypeAlias = Callable[[State, int], State | None]
"""Returns the state after a call, or None if the call could not have ended so in this state.

The second argument is the latest time at which the call took effect, by the server's clock, or
`ANY` if that is not known.
"""


@dataclass(slots=True, eq=False)
class Call:
    """A call, as the checker sees it.

    Attributes:
        operation: the record.
        apply: the change of the state.
        adopt: returns the state that the answer shows, after a violation.
        reads: what it depends on.
        writes: what it changes.
        optional: whether it may have had no effect.
        until: an optional call takes no effect from then on.
        bit: identifies it among the calls of its run that are under way.
        supersedes: the bits of calls of its store that take no effect after it.
    """

    operation: Operation
    apply: Change
    adopt: Callable[[State], State]
    reads: int
    writes: int
    optional: bool = False
    until: float = math.inf
    bit: int = 0
    supersedes: int = 0

    def conflicts_with(self, other: Call) -> bool:
        """Return whether the order of the two may matter."""
        return bool(
            self.writes & (other.reads | other.writes)
            or other.writes & self.reads
            or self.supersedes & other.bit
            or other.supersedes & self.bit
        )
