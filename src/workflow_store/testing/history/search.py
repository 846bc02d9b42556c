"""The search for an order of the calls of one run that explains all answers.

A history is linearizable if each call can be given one moment between its begin and its end
such that the calls, one after the other in the order of these moments, return what they
returned (Herlihy and Wing, *Linearizability*, 1990). The search is that of Wing and Gong,
*Testing and Verifying Concurrent Objects*, 1993, with two improvements of Lowe, *Testing for
Linearizability*, 2017: a configuration, which is a state and the calls that have not taken
effect yet, is visited once; and a call takes effect as late as possible, when it or another that
depends on it ends. So the search goes through the events once, and at a moment without calls
under way it holds few configurations, often one. Runs are searched one by one: Horn and
Kroening, *Faster linearizability checking via P-compositionality*, 2015.

A call of unknown outcome stays under way after its end. It has had no effect for good once a
later call of its store on the run has taken effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from .model import Model
from .records import Operation
from .state import Call, State

__all__ = ["Failure", "Search"]

MAX_CONFIGURATIONS: Final = 50_000
"""Visited for the end of one call; a history with more concurrency is not decided."""

MAX_CULPRITS: Final = 1_000
"""Earlier calls that are tried as the cause of a violation, the last ones first."""

_Configuration: TypeAlias = tuple[State, int]
"""A state, and the bits of the calls that have not taken effect."""

_BEGIN, _END, _GONE = range(3)


class Failure(NamedTuple):
    """A call whose answer nothing explains.

    Attributes:
        call: the call.
        culprit: an earlier call that would explain it if it took effect once more.
        decided: False if the search was given up.
    """

    call: Call
    culprit: Operation | None
    decided: bool


class _TooManyError(Exception):
    pass


class Search:
    """The search in the history of one run.

    Args:
        model: the model of the run.
        calls: its calls.
        operations: its records, also those that promise nothing.
    """

    def __init__(
        self, model: Model, calls: Sequence[Call], operations: Sequence[Operation]
    ) -> None:
        self._model = model
        self._calls = calls
        self._operations = sorted(operations, key=lambda operation: operation.began)
        self._configurations: set[_Configuration] = {(model.nothing, 0)}
        self._under_way: dict[int, Call] = {}
        self._free_bits: list[int] = []
        self._unknown: dict[str, set[Call]] = {}
        self._now = 0
        self._visits = 0

    def failures(self) -> Iterator[Failure]:
        """Yield the calls that nothing explains; after each that is decided, the search goes on."""
        for time, kind, call in self._events():
            self._now = time
            self._visits = 0
            try:
                failure = self._step(kind, call)
            except _TooManyError:
                yield Failure(call, None, decided=False)
                return
            if failure is not None:
                yield failure

    def _step(self, kind: int, call: Call) -> Failure | None:
        if kind == _BEGIN:
            self._begin(call)
        elif kind == _GONE:
            self._gone(call)
        elif not call.optional:
            return self._end(call)
        elif self._under_way.get(call.bit) is call:
            self._unknown.setdefault(call.operation.store, set()).add(call)
        return None

    def _events(self) -> list[tuple[int, int, Call]]:
        events = []
        for call in self._calls:
            events.append((call.operation.began, _BEGIN, call))
            if call.operation.ended is not None:
                events.append((call.operation.ended, _END, call))
            if call.until != math.inf:
                events.append((max(int(call.until), call.operation.began), _GONE, call))
        return sorted(events, key=lambda event: event[:2])

    # -- events ---------------------------------------------------------------------------

    def _begin(self, call: Call) -> None:
        call.bit = self._free_bits.pop() if self._free_bits else 1 << len(self._under_way)
        self._under_way[call.bit] = call
        if call.operation.error is None and not call.optional:
            for unknown in self._unknown.get(call.operation.store, ()):
                call.supersedes |= unknown.bit
        self._configurations = {(state, bits | call.bit) for state, bits in self._configurations}

    def _end(self, call: Call) -> Failure | None:
        failure = None
        before = self._configurations
        after = self._after(before, call)
        if not after:
            culprit, after = self._culprit(before, call)
            failure = Failure(call, culprit, decided=True)
        if not after:
            gone = ~(call.bit | call.supersedes)
            after = {(call.adopt(state), bits & gone) for state, bits in [*before][:8]}
        self._configurations = _without_dominated(after, self._under_way)
        for unknown in [*self._unknown.get(call.operation.store, ())]:
            if unknown.bit & call.supersedes:
                self._retire(unknown)
        self._retire(call)
        return failure

    def _gone(self, call: Call) -> None:
        """Let a call of unknown outcome have had its effect before, or none."""
        if self._under_way.get(call.bit) is not call:
            return
        after = {(state, bits & ~call.bit) for state, bits in self._configurations}
        self._configurations = after | self._after(self._configurations, call)
        self._retire(call)

    def _retire(self, call: Call) -> None:
        del self._under_way[call.bit]
        self._free_bits.append(call.bit)
        for other in self._under_way.values():
            other.supersedes &= ~call.bit
        self._unknown.get(call.operation.store, set()).discard(call)

    # -- the search -----------------------------------------------------------------------

    def _after(self, configurations: set[_Configuration], ending: Call) -> set[_Configuration]:
        """Return the configurations after a call took effect, and those before it that matter."""
        now = self._model.server_time(self._now)
        relevant = self._relevant(ending)
        reads = [call for call in relevant if not call.writes]
        after: set[_Configuration] = set()
        seen = set(configurations)
        stack = [*configurations]
        while stack:
            self._visits += 1
            if self._visits > MAX_CONFIGURATIONS:
                raise _TooManyError
            state, bits = _after_reads(stack.pop(), reads, now)
            if not ending.bit & bits:
                after.add((state, bits))
                continue
            for call in relevant:
                changed = call.apply(state, now) if call.bit & bits else None
                if changed is None:
                    continue
                next_ = (changed, bits & ~(call.bit | call.supersedes))
                if call is ending:
                    after.add(next_)
                elif next_ not in seen:
                    seen.add(next_)
                    stack.append(next_)
        return after

    def _relevant(self, ending: Call) -> list[Call]:
        """Return the calls under way whose order before a call may matter, and the call."""
        relevant = [ending]
        others = [call for call in self._under_way.values() if call is not ending]
        for one in relevant:
            found = [call for call in others if call.conflicts_with(one)]
            if found:
                relevant += found
                others = [call for call in others if call not in found]
        return relevant

    # -- the cause ------------------------------------------------------------------------

    def _culprit(
        self, configurations: set[_Configuration], call: Call
    ) -> tuple[Operation | None, set[_Configuration]]:
        """Return an earlier call that would explain another if it took effect now."""
        under_way = {id(other.operation) for other in self._under_way.values() if other.writes}
        earlier = [
            operation
            for operation in self._operations
            if operation.began < self._now and id(operation) not in under_way
        ][-MAX_CULPRITS:]
        # First those that may never have had an effect.
        earlier.sort(key=lambda operation: (operation.error is not None, operation.began))
        now = self._model.server_time(self._now)
        for operation in reversed(earlier):
            effect = self._model.effect(operation)
            if effect is None:
                continue
            changed = {(effect(state, now), bits) for state, bits in configurations}
            possible = {(state, bits) for state, bits in changed if state is not None}
            if possible and (after := self._after(possible, call)):
                return operation, after
        return self._writer(configurations, call, earlier), set()

    def _writer(
        self, configurations: set[_Configuration], call: Call, earlier: list[Operation]
    ) -> Operation | None:
        """Return the writer of a value that a read returned and that is in no possible state."""
        if call.writes or call.operation.error is not None:
            return None
        shown = self._model.values(call.operation)
        for state, _ in configurations:
            shown -= {state.fields, state.context, *state.steps}
        for operation in earlier:
            if self._model.effect(operation) and shown & self._model.values(operation):
                return operation
        return None


def _after_reads(configuration: _Configuration, reads: list[Call], now: int) -> _Configuration:
    """Let reads take effect whose answers are right now; nothing is lost by that."""
    state, bits = configuration
    for call in reads:
        if call.bit & bits and not call.supersedes & bits:
            shown = call.apply(state, now)
            if shown is not None:
                state, bits = shown, bits & ~call.bit
    return state, bits


def _without_dominated(
    configurations: set[_Configuration], under_way: dict[int, Call]
) -> set[_Configuration]:
    """Remove configurations whose state another has, too, with more calls that are optional."""
    if len(configurations) < 2:
        return configurations
    optional = sum(bit for bit, call in under_way.items() if call.optional)
    best: dict[tuple[State, int], list[int]] = {}
    for state, bits in configurations:
        others = best.setdefault((state, bits & ~optional), [])
        mine = bits & optional
        if not any(mine & other == mine for other in others):
            others[:] = [other for other in others if other & mine != other] + [mine]
    return {(state, bits | mine) for (state, bits), several in best.items() for mine in several}
