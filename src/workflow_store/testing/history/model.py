"""What a call does to a run: the sequential specification that histories are checked against.

A run with its steps and its claim is one object, since a delete, `commit_step` and a fence
concern several of its rows at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from .claims import CLAIM_METHODS, claim_call, claim_lost, fenced, own_fence, unknown_claim
from .records import History, Operation
from .state import (
    ALL,
    ANY,
    CLAIM,
    EXISTS,
    FIRST_STEP,
    ROW,
    Call,
    Change,
    Insertion,
    State,
    Step,
    absent,
)

__all__ = ["Model"]

_READS = frozenset({"get_run", "load_run", "list_steps", "get_step"})
_UPDATES = frozenset({"upsert_step", "update_context", "commit_step"})
_STEPS = ALL & ~(EXISTS | ROW | CLAIM)


class _Row(NamedTuple):
    fields: int
    context: int


class _Effect(NamedTuple):
    change: Change
    writes: int


class Model:
    """Makes a `Call` of each record of one run.

    Args:
        steps: all steps that the run ever had.
        history: what is known of the server's clock.
    """

    def __init__(self, steps: list[str], history: History) -> None:
        self.nothing = absent(len(steps))
        self._places = {step_id: place for place, step_id in enumerate(steps)}
        self._values: dict[str, int] = {}
        self._seen: set[int] = set()
        self._unseen_since: dict[int, int] = {}
        self._server_clock_ns = history.server_clock_ns if history.steady_clock else None
        self._steady_clock = history.steady_clock

    def server_time(self, time: int) -> int:
        """Return the server's time at a time of the records, or `ANY` if it is not known."""
        return ANY if self._server_clock_ns is None else time + self._server_clock_ns

    def calls(self, operations: Iterable[Operation]) -> list[Call]:
        """Return the calls of this run, without those that promise nothing.

        A failed read and a refused write do not, nor does a write of unknown outcome if no
        reader ever saw its value: the others have the same explanations with and without it,
        except that it may have determined the place of its step.
        """
        operations = list(operations)
        for operation in operations:
            if operation.method in _READS and operation.error is None and operation.ended:
                self._seen |= self.values(operation)
        matter = [operation for operation in operations if not self._is_unseen(operation)]
        calls = map(self._call, matter)
        return [call for call in calls if call is not None]

    def _is_unseen(self, operation: Operation) -> bool:
        if operation.method not in _UPDATES or not operation.is_unknown:
            return False
        if not self._seen.isdisjoint(self.values(operation)):
            return False
        if "step" in operation.arguments:
            place = self._step(operation.arguments["step"]).place
            since = self._unseen_since.get(place, operation.began)
            self._unseen_since[place] = min(since, operation.began)
        return True

    def _call(self, operation: Operation) -> Call | None:
        if operation.is_unknown:
            return None if operation.method in _READS else self._unknown(operation)
        match operation.error:
            case None:
                return self._known(operation)
            case "RunNotFoundError":
                return _run_not_found(operation)
            case "ClaimLostError":
                return claim_lost(operation)
        return None

    def effect(self, operation: Operation) -> Change | None:
        """Return what a write does, whatever its fence; None for reads and known claims."""
        if operation.method in _READS:
            return None
        if operation.method in CLAIM_METHODS:
            return unknown_claim(operation) if operation.is_unknown else None
        return self._effect(operation).change

    # -- values ---------------------------------------------------------------------------

    def values(self, operation: Operation) -> set[int]:
        """Return the values that a write would write, or that a read returned."""
        if operation.method == "list_steps":
            shown = {"steps": operation.answer}
        elif operation.method == "load_run":
            shown = operation.answer
        else:
            shown = {"state": operation.answer} if operation.method == "get_run" else {}
            if operation.method == "get_step":
                shown = {"step": operation.answer}
        found: set[int] = set()
        for name, value in {**operation.arguments, **(shown or {})}.items():
            if value is None:
                continue
            if name in {"state", "run"}:
                found.update(self._row(value))
            elif name == "context":
                found.add(self._value(value))
            elif name in {"step", "steps"}:
                found.update(map(self._value, value if name == "steps" else [value]))
        return found

    def _value(self, value: Any) -> int:
        return self._values.setdefault(json.dumps(value), len(self._values) + 1)

    def _row(self, run: dict[str, Any]) -> _Row:
        fields = {name: run[name] for name in run if name not in {"context", "updated_at"}}
        return _Row(self._value(fields), self._value(run["context"]))

    def _step(self, step: dict[str, Any]) -> Step:
        return Step(self._places[step["step_id"]], self._value(step))

    def _known(self, operation: Operation) -> Call:
        if operation.method in _READS:
            return self._read(operation)
        if operation.method in CLAIM_METHODS:
            began_at = self.server_time(operation.began)
            return claim_call(operation, began_at, steady_clock=self._steady_clock)
        if operation.method == "purge_runs":  # of this run, maybe
            return self._unknown(operation)
        return self._write(operation)

    # -- writes ---------------------------------------------------------------------------

    def _unknown(self, operation: Operation) -> Call:
        if operation.method in CLAIM_METHODS:
            change, reads, writes = unknown_claim(operation), EXISTS | CLAIM, CLAIM
        else:
            change, writes = self._effect(operation)
            change, reads = fenced(operation, change), _needs(operation)
        return Call(operation, change, lambda state: state, reads, writes, optional=True)

    def _write(self, operation: Operation) -> Call:
        change, writes = self._effect(operation)

        def adopt(state: State) -> State:
            state = state.existing()._replace(token=own_fence(operation) or state.token)
            return change(state, ANY) or state

        return Call(operation, fenced(operation, change), adopt, _needs(operation), writes)

    def _effect(self, operation: Operation) -> _Effect:
        arguments = operation.arguments
        match operation.method:
            case "delete_run" | "purge_runs":
                return _Effect(lambda state, _: absent(len(state.steps), state.last_token), ALL)
            case "create_run":
                fields, context = self._row(arguments["state"])
                return _Effect(
                    lambda state, _: state._replace(exists=True, fields=fields, context=context),
                    EXISTS | ROW,
                )
            case "update_context":
                return self._update(operation, (), self._value(arguments["context"]))
            case "upsert_step":
                return self._update(operation, (self._step(arguments["step"]),), None)
            case "commit_step":
                step = self._step(arguments["step"])
                return self._update(operation, (step,), self._value(arguments["context"]))
        raise ValueError(f"{operation.method}: no such method")

    def _update(
        self, operation: Operation, steps: tuple[Step, ...], context: int | None
    ) -> _Effect:
        ended = operation.ended
        insertion_ended = math.inf if ended is None or operation.is_unknown else ended

        def update(state: State, _: int) -> State | None:
            if not state.exists:
                return None
            if context is not None:
                state = state._replace(context=context)
            for step in steps:
                if not state.steps[step.place]:
                    began = min(
                        operation.began, self._unseen_since.get(step.place, operation.began)
                    )
                    insertion = Insertion(step.place, began, insertion_ended)
                    state = state._replace(inserted=state.inserted | {insertion})
                state = state.with_step(step)
            return state

        writes = 0 if context is None else ROW
        for step in steps:
            writes |= FIRST_STEP << step.place
        return _Effect(update, writes)

    # -- reads ----------------------------------------------------------------------------

    def _read(self, operation: Operation) -> Call:
        answer = operation.answer
        match operation.method:
            case "get_run":
                return _read_row(operation, None if answer is None else self._row(answer))
            case "list_steps":
                return self._read_steps(operation, answer)
            case "load_run" if answer is None:
                return _read_row(operation, None)
            case "load_run":
                row = _read_row(operation, self._row(answer["run"]))
                return _both(row, self._read_steps(operation, answer["steps"]))
        place = self._places[operation.arguments["step_id"]]
        return _read_step(operation, Step(place, 0 if answer is None else self._value(answer)))

    def _read_steps(self, operation: Operation, answer: list[dict[str, Any]]) -> Call:
        steps = [self._step(step) for step in answer]
        values = [0] * len(self._places)
        for step in steps:
            values[step.place] = step.value
        return _read_steps(operation, tuple(values), tuple(step.place for step in steps))


def _needs(operation: Operation) -> int:
    return EXISTS | CLAIM if own_fence(operation) else EXISTS


def _run_not_found(operation: Operation) -> Call:
    return Call(
        operation,
        lambda state, _: None if state.exists else state,
        lambda state: absent(len(state.steps), state.last_token),
        EXISTS, 0,
    )  # fmt: skip


def _read_row(operation: Operation, row: _Row | None) -> Call:
    def apply(state: State, _: int) -> State | None:
        if row is None or not state.exists:
            return state if row is None and not state.exists else None
        if state[1:3] == row:
            return state
        matches = state.fields in {row.fields, ANY} and state.context in {row.context, ANY}
        return adopt(state) if matches else None

    def adopt(state: State) -> State:
        if row is None:
            return absent(len(state.steps), state.last_token)
        return state._replace(exists=True, fields=row.fields, context=row.context)

    return Call(operation, apply, adopt, EXISTS | ROW, 0)


def _read_step(operation: Operation, seen: Step) -> Call:
    def adopt(state: State) -> State:
        inserted, order = state.inserted, state.order
        if not seen.value:
            inserted = frozenset(one for one in inserted if one.place != seen.place)
            order = tuple(place for place in order if place != seen.place)
        elif not state.steps[seen.place]:
            inserted |= {_some_time(seen.place)}
            state = state.existing()
        return state.with_step(seen)._replace(inserted=inserted, order=order)

    return Call(
        operation,
        lambda state, _: state if state.steps[seen.place] == seen.value else None,
        adopt, EXISTS | FIRST_STEP << seen.place, 0,
    )  # fmt: skip


def _read_steps(operation: Operation, values: tuple[int, ...], order: tuple[int, ...]) -> Call:
    def apply(state: State, _: int) -> State | None:
        if state.steps != values:
            return None
        if state.order == order:
            return state
        return state._replace(order=order) if _may_be_ordered(state, order) else None

    def adopt(state: State) -> State:
        if order:
            state = state.existing()
        inserted = frozenset(map(_some_time, order))
        return state._replace(steps=values, order=order, inserted=inserted)

    return Call(operation, apply, adopt, EXISTS | _STEPS, 0)


def _some_time(place: int) -> Insertion:
    return Insertion(place, 0, math.inf)


def _may_be_ordered(state: State, order: tuple[int, ...]) -> bool:
    """Return whether the steps may be in this order.

    Those that were seen before are in the order in which they were seen. Of two insertions, one
    that ended before the other began is the first. Of two at a time, one may come first that
    becomes visible last.
    """
    seen = set(state.order)
    if tuple(place for place in order if place in seen) != state.order:
        return False
    inserted = {one.place: one for one in state.inserted}
    last_began = 0
    for place in order:
        if inserted[place].ended < last_began:
            return False
        last_began = max(last_began, inserted[place].began)
    return True


def _both(row: Call, steps: Call) -> Call:
    """Return a read of a run and its steps as of one moment."""

    def apply(state: State, now: int) -> State | None:
        after = row.apply(state, now)
        return None if after is None else steps.apply(after, now)

    return Call(
        row.operation, apply, lambda state: steps.adopt(row.adopt(state)),
        row.reads | steps.reads, 0,
    )  # fmt: skip
