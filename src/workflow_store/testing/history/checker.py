"""Checks a history: is there a correct store that could have answered so?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from .model import Model
from .records import History, Operation
from .search import Failure, Search

__all__ = ["Rule", "Violation", "check"]


class Rule(StrEnum):
    """What a store promises and did not keep."""

    LATE_WRITE = "late write"
    """A call of unknown outcome took effect after a later call of its store was acknowledged."""
    UNDONE = "undone"
    """An acknowledged write was lost, or an earlier one took effect once more."""
    REFUSED = "refused"
    """A call took effect although it raised an error that excludes that."""
    WRONG_ERROR = "wrong error"
    """`RunNotFoundError` or `ClaimLostError`, which nothing explains."""
    CLAIM = "claim"
    """A claim that was granted while another one held, or with a token that did not grow."""
    WRONG_ANSWER = "wrong answer"
    """Any other answer that nothing explains."""
    UNDECIDED = "undecided"
    """There was too much concurrency on one run to decide."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An answer that no correct store could have returned.

    Attributes:
        rule: the promise that was not kept.
        operation: the call whose answer shows it.
        culprit: the earlier call that explains the answer if it took effect late, or twice.
        before: calls of this run that ended or began shortly before, in the order of their begin.
    """

    rule: Rule
    operation: Operation
    culprit: Operation | None
    before: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = [f"{self.rule}: {self.operation}"]
        if self.culprit is not None:
            lines.append(f"  explained by a later or second effect of: {self.culprit}")
        return "\n".join([*lines, *(f"    {operation}" for operation in self.before)])


def check(history: History) -> list[Violation]:
    """Return the violations in a history, in the order of time.

    Every call needs one moment between its begin and its end at which it took effect, such that
    all answers are those of a store to which the calls came one after the other. This includes
    the order of the steps, the atomicity of `commit_step` and of deletes, and claims. A call
    whose outcome is unknown (it raised `StoreUnavailableError`, was cancelled, or its process
    was killed) may take effect at any moment after its begin, or never, until its store object
    is known to be gone, or has acknowledged a write or returned a read of the run in a call that
    began after the unknown one had ended. A call that raised any other error changed nothing.

    The store is empty at the beginning. Values should be different in each write, so that an
    answer shows which write it comes from. Read everything at the end, after the last fault.
    """
    violations = [
        _violation(failure, operations)
        for run, operations in _by_run(history.operations).items()
        for failure in _search(history, run, operations)
    ]
    return sorted(violations, key=lambda violation: violation.operation.ended or 0)


def _search(history: History, run: str, operations: list[Operation]) -> Iterator[Failure]:
    steps = dict.fromkeys(
        operation.arguments["step"]["step_id"]
        if "step" in operation.arguments
        else operation.arguments["step_id"]
        for operation in operations
        if operation.arguments.keys() & {"step", "step_id"}
    )
    # A step that is read and was never written is a violation, too.
    for operation in operations:
        answer = operation.answer
        listed = answer["steps"] if operation.method == "load_run" and answer else answer
        if operation.method in {"load_run", "list_steps"} and listed:
            steps.update(dict.fromkeys(step["step_id"] for step in listed))
    model = Model([*steps], history)
    calls = model.calls(operations)
    for call in calls:
        call.until = _until(history, call.operation)
    return Search(model, calls, operations).failures()


def _until(history: History, operation: Operation) -> float:
    if operation.method == "purge_runs" and operation.ended is not None:
        return operation.ended
    return history.gone.get(operation.store, math.inf) if operation.is_unknown else math.inf


def _by_run(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return the calls on each run; those on many runs occur in several."""
    runs: dict[str, list[Operation]] = {}
    on_many = []
    for operation in operations:
        if operation.run:
            runs.setdefault(operation.run, []).append(operation)
        else:
            on_many.append(operation)
    claimed = {
        run
        for run, of_run in runs.items()
        if any(operation.method == "claim_run" for operation in of_run)
    }
    for operation in on_many:
        if operation.method == "claim_abandoned_runs" and not operation.is_unknown:
            for claim in operation.answer or ():
                run = claim["run_task_id"]
                runs.setdefault(run, []).append(replace(operation, run=run, answer=claim))
        else:
            for run in claimed if operation.method == "claim_abandoned_runs" else [*runs]:
                runs[run].append(replace(operation, run=run))
    return runs


def _violation(failure: Failure, operations: list[Operation]) -> Violation:
    operation = failure.call.operation
    ended = operation.ended or operation.began
    before = sorted(
        (other for other in operations if other.began <= ended and other is not operation),
        key=lambda other: other.began,
    )
    return Violation(_rule(failure), operation, failure.culprit, tuple(before[-10:]))


def _rule(failure: Failure) -> Rule:
    operation, culprit = failure.call.operation, failure.culprit
    if not failure.decided:
        return Rule.UNDECIDED
    if culprit is not None:
        if culprit.is_unknown:
            return Rule.LATE_WRITE
        return Rule.UNDONE if culprit.error is None else Rule.REFUSED
    if operation.error is not None:
        return Rule.WRONG_ERROR
    if operation.method in {"claim_run", "claim_abandoned_runs"} or operation.fence is not None:
        return Rule.CLAIM
    return Rule.WRONG_ANSWER
