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

__all__ = ["explain"]

_LIMIT = 200_000
"""States tried before a history is given up as undecided. None has needed a tenth of it."""


def _bars(later: Operation, earlier: Operation) -> bool:
    """Return whether an earlier call that has ended takes no effect after a later one."""
    if earlier.outcome is not Outcome.UNKNOWN:
        return True
    is_answered = later.outcome is Outcome.ANSWERED and not later.is_optional
    return is_answered and later.store == earlier.store


def explain(operations: list[Operation], written: dict[int, Written]) -> list[Operation] | None:
    """Return an order of the calls on one run that explains all answers, or None."""
    search = _Search(sorted(operations, key=lambda operation: operation.called), Model(written))
    return search.order if search.finds(0, State()) else None


class _Search:
    """The search. A set of calls is an integer, with a bit for each of them.

    Attributes:
        order: the calls that were placed.
    """

    def __init__(self, operations: list[Operation], model: Model) -> None:
        self.order: list[Operation] = []
        self._operations = operations
        self._model = model
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
        self._tried: set[tuple[int, State]] = set()

    def finds(self, done: int, state: State) -> bool:
        """Return whether the calls that are not done can follow on a state."""
        if done & self._all == self._all or len(self._tried) > _LIMIT:
            return True
        if (done, state) in self._tried:
            return False
        self._tried.add((done, state))
        for index in self._candidates(done):
            operation, barred = self._operations[index], self._barred[index]
            after = self._model.after(operation, state)
            if after is None or (after == state and not self._required[index]):
                continue
            self.order.append(operation)
            if self.finds(done | 1 << index | barred, after):
                return True
            self.order.pop()
            # What changes nothing is never placed better later.
            if operation.is_read and not barred & ~done:
                return False
        return False

    def _candidates(self, done: int) -> list[int]:
        """Return the calls that began before any other one ended, the required ones first."""
        candidates: list[int] = []
        end = inf
        for index, operation in enumerate(self._operations):
            if operation.called > end:
                break
            if not done >> index & 1:
                candidates.append(index)
                if self._required[index]:
                    end = min(end, operation.ended)
        candidates = [index for index in candidates if self._operations[index].called < end]
        return sorted(candidates, key=lambda index: not self._required[index])
