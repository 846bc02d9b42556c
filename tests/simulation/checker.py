"""Checks a history: is there an order of its calls that explains every answer?

A run with its steps and its claim is one object with a sequential specification. A history is
linearizable if each call took effect at one moment between its invocation and its answer, and a
call of unknown outcome at one moment after its invocation, or never:

* Wing and Gong, Testing and Verifying Concurrent Objects, 1993: the search
* Lowe, Testing for Linearizability, 2017: the memory of what was tried
* Horn and Kroening, Faster Linearizability Checking via P-compositionality, 2015: run by run

The contract asks for more: a call of unknown outcome takes effect before every later call of the
same store object on the run that was answered, or never.
"""

from __future__ import annotations

from math import inf

from .model import Model, Operation, Outcome, State, Written

__all__ = ["Undecided", "explain"]

_LIMIT = 100_000
"""States tried before a history is given up as undecided."""


class Undecided(Exception):  # noqa: N818 - neither right nor wrong
    """The search took too long."""


def _bars(later: Operation, earlier: Operation) -> bool:
    """Return whether an earlier call that has ended takes no effect after a later one."""
    if earlier.outcome is not Outcome.UNKNOWN:
        return True
    is_answered = later.outcome is Outcome.ANSWERED and not later.is_optional
    return is_answered and later.store == earlier.store


def explain(operations: list[Operation], written: dict[int, Written]) -> list[Operation] | None:
    """Return an order of the calls on one run that explains all answers, or None.

    Few calls of unknown outcome take effect between two others, so that those orders are
    searched first.

    Raises:
        Undecided: it takes too long.
    """
    operations = sorted(operations, key=lambda operation: operation.called)
    for most in (1, 3, len(operations)):
        search = _Search(operations, Model(written), most)
        if search.finds(0, State(), 0):
            return search.order
        if not search.was_limited:
            return None
    return None


class _Search:
    """The search. A set of calls is an integer, with a bit for each of them.

    Args:
        operations: the calls.
        model: the specification.
        most: how many calls that may have had no effect are placed in a row.

    Attributes:
        order: the calls that were placed.
        was_limited: whether `most` excluded an order.
    """

    def __init__(self, operations: list[Operation], model: Model, most: int) -> None:
        self.order: list[Operation] = []
        self.was_limited = False
        self._operations = operations
        self._model = model
        self._most = most
        self._required = [
            operation.outcome is not Outcome.UNKNOWN and not operation.is_optional
            for operation in operations
        ]
        self._all = sum(1 << index for index, required in enumerate(self._required) if required)
        # What can no longer take effect after each call.
        self._barred = [
            sum(
                1 << index
                for index, earlier in enumerate(operations)
                if earlier.ended < later.called
                and not self._required[index]
                and _bars(later, earlier)
            )
            for later in operations
        ]
        self._tried: dict[tuple[int, State, int], list[int]] = {}
        self._states = 0

    def finds(self, done: int, state: State, in_a_row: int) -> bool:
        """Return whether the calls that are not done can follow on a state."""
        required = done & self._all
        if required == self._all:
            return True
        # From the same state, whoever has more calls left finds what any other one finds.
        tried = self._tried.setdefault((required, state, in_a_row), [])
        for fewer in tried:
            if done & fewer == fewer:
                return False
        tried.append(done)
        self._states += 1
        if self._states > _LIMIT:
            raise Undecided
        for index in self._candidates(done):
            operation, barred = self._operations[index], self._barred[index]
            is_required = self._required[index]
            after = self._model.after(operation, state)
            if after is None or (after == state and not is_required):
                continue
            if not is_required and in_a_row == self._most:
                self.was_limited = True
                continue
            self.order.append(operation)
            if self.finds(done | 1 << index | barred, after, 0 if is_required else in_a_row + 1):
                return True
            self.order.pop()
            # What changes nothing is never placed better later.
            if operation.is_read and not barred & ~done:
                return False
        return False

    def _candidates(self, done: int) -> list[int]:
        """Return the calls that began before any other one ended.

        The required ones come first, then the latest.
        """
        required: list[int] = []
        optional: list[int] = []
        end = inf
        for index, operation in enumerate(self._operations):
            if operation.called > end:
                break
            if done >> index & 1:
                continue
            if self._required[index]:
                required.append(index)
                end = min(end, operation.ended)
            else:
                optional.append(index)
        return required + optional[::-1]
