"""Histories that a correct store can have, and others that none can."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.histories import CANCELLED, LOST, NOT_FOUND, UNAVAILABLE, Script, begun, claim
from workflow_store.testing.history import Rule

RIGHT: dict[str, Callable[[], Script]] = {
    "a read during a write sees either value": lambda: (
        begun()
        .upsert("a", (10, 20), 1)
        .sees("b", (11, 12), 0)
        .sees("c", (13, 14), 1)
        .sees("b", (15, 16), 1)
    ),
    "two writes at a time are in any order": lambda: (
        begun().upsert("a", (10, 20), 1).upsert("b", (11, 19), 2).sees("c", (21, 22), 1)
    ),
    "a write of unknown outcome was never done": lambda: (
        begun().upsert("a", (10, 20), 1, error=UNAVAILABLE).sees("a", (21, 22), 0)
    ),
    "a write of unknown outcome is done before the next call of its store": lambda: (
        begun()
        .upsert("a", (10, 20), 1, error=CANCELLED)
        .sees("b", (21, 22), 0)
        .sees("a", (23, 24), 1)
    ),
    "a write of a killed process is done long after": lambda: (
        begun().upsert("dead", (10, None), 1).upsert("a", (20, 21), 2).sees("a", (22, 23), 1)
    ),
    "a write of a killed process is done before its sessions have ended": lambda: (
        begun().upsert("dead", (10, None), 1).gone("dead", 15).sees("a", (22, 23), 1)
    ),
    "a late write of another store is not excluded by a read": lambda: (
        begun()
        .upsert("a", (10, 20), 1, error=UNAVAILABLE)
        .sees("b", (21, 22), 0)
        .sees("b", (23, 24), 1)
    ),
    "a failed read shows nothing": lambda: (
        begun()
        .upsert("a", (10, 20), 1, error=UNAVAILABLE)
        .call("a", (21, 22), "get_step", error=UNAVAILABLE, step_id="s")
        .sees("b", (23, 24), 0)
        .sees("b", (25, 26), 1)
    ),
    "the steps of two inserts at a time are in any order": lambda: (
        begun()
        .upsert("a", (10, 20), 1, "x")
        .upsert("b", (11, 19), 2, "y")
        .lists("c", (21, 22), (0, "s"), (2, "y"), (1, "x"))
    ),
    "an insert that becomes visible last may come first": lambda: (
        begun()
        .upsert("a", (10, 20), 1, "x")
        .upsert("b", (11, 19), 2, "y")
        .lists("c", (12, 13), (0, "s"), (2, "y"))
        .lists("c", (21, 22), (0, "s"), (1, "x"), (2, "y"))
    ),
    "a run that is created again keeps its steps": lambda: (
        begun().create("a", (10, 11), 1, context=1).loads("a", (12, 13), 1, (0, "s"), number=1)
    ),
    "a run that was deleted and created again has no steps": lambda: (
        begun().delete("a", (10, 11)).create("a", (12, 13), 1).lists("a", (14, 15))
    ),
    "a write finds no run during a delete": lambda: (
        begun().delete("a", (10, 20)).upsert("b", (11, 12), 1, error=NOT_FOUND)
    ),
    "a lease is over": lambda: (
        begun()
        .claims("a", (10, 11), claim(1, 20))
        .claims("b", (19, 21), claim(2, 30, owner="you"), owner="you")
        .upsert("a", (22, 23), 1, fence=1, error=LOST)
    ),
    "a claim of unknown outcome voids the one before": lambda: (
        begun()
        .claims("a", (10, 11), claim(1, 20))
        .claims("a", (12, 13), None, error=CANCELLED)
        .upsert("a", (14, 15), 1, fence=1, error=LOST)
        .claims("a", (16, 17), claim(3, 27))
        .upsert("a", (18, 19), 1, fence=3)
    ),
    "a renewed claim holds on, a released one does not": lambda: (
        begun()
        .claims("a", (10, 11), claim(1, 20))
        .renews("a", (18, 19), 1, 28)
        .claims("b", (21, 22), None, owner="you")
        .releases("a", (23, 24), 1)
        .claims("b", (25, 26), claim(2, 35, owner="you"), owner="you")
    ),
    "an abandoned run is claimed": lambda: (
        begun()
        .claims("a", (10, 11), claim(1, 20))
        .call(
            "b", (21, 22), "claim_abandoned_runs", [claim(2, 31, owner="you")], run="",
            owner="you", lease_s=10,
        )
        .renews("a", (23, 24), 1, error=LOST)
    ),
    "a purge deletes a run, or does not": lambda: (
        begun()
        .create("a", (4, 5), 1)
        .call("b", (10, 20), "purge_runs", 1, run="")
        .sees("c", (11, 12), 0)
        .sees("c", (13, 14), None)
    ),
    "an error that excludes an effect has none": lambda: (
        begun().upsert("a", (10, 11), 1, error="WorkflowStoreError").sees("a", (12, 13), 0)
    ),
}  # fmt: skip

WRONG: dict[str, tuple[Rule, Callable[[], Script]]] = {
    "a write is lost": (
        Rule.UNDONE,
        lambda: begun().upsert("a", (10, 11), 1).sees("b", (12, 13), 0),
    ),
    "a read goes back in time": (
        Rule.UNDONE,
        lambda: begun().upsert("a", (10, 20), 1).sees("b", (11, 12), 1).sees("b", (13, 14), 0),
    ),
    "a late write undoes an acknowledged one": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .upsert("a", (10, 20), 1, error=UNAVAILABLE)
            .upsert("a", (21, 22), 2)
            .sees("b", (23, 24), 1)
        ),
    ),
    "a late write undoes one of another step, which had settled it": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .upsert("a", (10, 20), 1, error=UNAVAILABLE)
            .upsert("a", (21, 22), 2, "other")
            .sees("b", (23, 24), 0)
            .sees("b", (25, 26), 1)
        ),
    ),
    "a late write overtakes a read of its store": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .upsert("a", (10, 20), 1, error=CANCELLED)
            .sees("a", (21, 22), 0)
            .sees("a", (23, 24), 1)
        ),
    ),
    "a late delete takes the steps of a new run": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .delete("a", (10, 20), error=UNAVAILABLE)
            .create("a", (21, 22), 1)
            .upsert("a", (23, 24), 2)
            .call("b", (25, 26), "load_run", None)
        ),
    ),
    "a write of a killed process is done after its sessions have ended": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .upsert("dead", (10, None), 1)
            .gone("dead", 15)
            .sees("a", (20, 21), 0)
            .sees("a", (22, 23), 1)
        ),
    ),
    "a write is repeated after another one": (
        Rule.UNDONE,
        lambda: (
            begun()
            .upsert("a", (10, 30), 1)
            .sees("b", (11, 12), 1)
            .upsert("b", (13, 14), 2)
            .sees("b", (15, 16), 2)
            .sees("b", (31, 32), 1)
        ),
    ),
    "a write that found no run was done": (
        Rule.REFUSED,
        lambda: (
            begun()
            .upsert("a", (10, 20), 1, error=NOT_FOUND)
            .sees("b", (11, 12), 1)
            .delete("b", (13, 14))
        ),
    ),
    "a fenced write that lost its claim was done": (
        Rule.REFUSED,
        lambda: (
            begun()
            .claims("a", (4, 5), claim(1, 15))
            .releases("a", (6, 7), 1)
            .upsert("a", (10, 11), 1, fence=1, error=LOST)
            .sees("b", (12, 13), 1)
        ),
    ),
    "a refused write was done": (
        Rule.REFUSED,
        lambda: begun().upsert("a", (10, 11), 1, error="WorkflowStoreError").sees("a", (12, 13), 1),
    ),
    "a run is not found that was there": (
        Rule.WRONG_ERROR,
        lambda: begun().context("a", (10, 11), 1, error=NOT_FOUND),
    ),
    "a claim is reported as lost that holds": (
        Rule.WRONG_ERROR,
        lambda: (
            begun().claims("a", (10, 11), claim(1, 20)).renews("a", (12, 13), 1, error=LOST)
        ),
    ),
    "a delete was done and is reported as refused": (
        Rule.REFUSED,
        lambda: (
            begun().claims("a", (10, 11), claim(1, 20)).delete("a", (12, 13), fence=1, error=LOST)
        ),
    ),
    "a step is seen without the context of its commit": (
        Rule.WRONG_ANSWER,
        lambda: begun().commit("a", (10, 20), 1, 1).loads("b", (11, 12), 0, (1, "s")),
    ),
    "a step survives the delete of its run": (
        Rule.UNDONE,
        lambda: begun().delete("a", (10, 11)).sees("a", (12, 13), 0),
    ),
    "an old step is in a new run": (
        Rule.UNDONE,
        lambda: (
            begun()
            .delete("a", (10, 11))
            .create("a", (12, 13), 1)
            .loads("b", (14, 15), 0, (0, "s"), number=1)
        ),
    ),
    "a write brings a deleted run back": (
        Rule.UNDONE,
        lambda: begun().delete("a", (10, 11)).upsert("a", (12, 13), 1),
    ),
    "steps that were awaited are in another order": (
        Rule.WRONG_ANSWER,
        lambda: (
            begun()
            .upsert("a", (10, 11), 1, "x")
            .upsert("a", (12, 13), 2, "y")
            .lists("b", (14, 15), (0, "s"), (2, "y"), (1, "x"))
        ),
    ),
    "the order of steps changes": (
        Rule.WRONG_ANSWER,
        lambda: (
            begun()
            .upsert("a", (10, 20), 1, "x")
            .upsert("b", (11, 19), 2, "y")
            .lists("b", (21, 22), (0, "s"), (2, "y"), (1, "x"))
            .lists("b", (23, 24), (0, "s"), (1, "x"), (2, "y"))
        ),
    ),
    "an update moves a step to the end": (
        Rule.WRONG_ANSWER,
        lambda: (
            begun()
            .upsert("a", (10, 11), 1, "x")
            .upsert("a", (12, 13), 2)
            .lists("b", (14, 15), (1, "x"), (2, "s"))
        ),
    ),
    "two owners hold a run": (
        Rule.CLAIM,
        lambda: (
            begun()
            .claims("a", (10, 11), claim(1, 20))
            .claims("b", (12, 13), claim(2, 22, owner="you"), owner="you")
        ),
    ),
    "a cancelled claim is executed after the next one": (
        Rule.LATE_WRITE,
        lambda: (
            begun()
            .claims("a", (10, 11), None, error=CANCELLED)
            .claims("a", (12, 13), claim(1, 72))
            .upsert("a", (14, 15), 1, fence=1, error=LOST)
        ),
    ),
    "a token does not grow": (
        Rule.CLAIM,
        lambda: (
            begun()
            .claims("a", (10, 11), claim(2, 20))
            .delete("a", (12, 13))
            .create("a", (14, 15))
            .claims("a", (16, 17), claim(1, 26))
        ),
    ),
    "a claim is refused although the lease is over": (
        Rule.CLAIM,
        lambda: (
            begun().claims("a", (10, 11), claim(1, 20)).claims("b", (30, 31), None, owner="you")
        ),
    ),
    "a write passes the fence after a later claim": (
        Rule.CLAIM,
        lambda: (
            begun()
            .claims("a", (10, 11), claim(1, 20))
            .claims("b", (30, 31), claim(2, 40, owner="you"), owner="you")
            .upsert("a", (32, 33), 1, fence=1)
        ),
    ),
    "a run that nobody claimed is abandoned": (
        Rule.CLAIM,
        lambda: begun().call(
            "b", (21, 22), "claim_abandoned_runs", [claim(2, 31, owner="you")], run="",
            owner="you", lease_s=10,
        ),
    ),
    "a value was written by no call": (
        Rule.WRONG_ANSWER,
        lambda: begun().sees("a", (10, 11), 7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT.keys())
def test_a_history_of_a_correct_store_is_accepted(history: Callable[[], Script]) -> None:
    assert history().violations() == []


@pytest.mark.parametrize(("rule", "history"), WRONG.values(), ids=WRONG.keys())
def test_a_history_of_no_correct_store_is_rejected(
    rule: Rule, history: Callable[[], Script]
) -> None:
    (violation,) = history().violations()
    assert violation.rule is rule


def test_the_check_goes_on_after_a_violation() -> None:
    script = begun()
    for second in range(10, 50, 4):
        script.upsert("a", (second, second + 1), second).sees("b", (second + 2, second + 3), 0)
    assert len(script.violations()) == 10


def test_a_violation_names_the_call_that_explains_it() -> None:
    script = begun().upsert("a", (10, 20), 1, error=UNAVAILABLE).upsert("a", (21, 22), 2)
    (violation,) = script.sees("b", (23, 24), 1).violations()
    assert violation.culprit is script.history.operations[2]
    assert "upsert_step" in str(violation)


def test_too_much_concurrency_is_reported_and_not_accepted() -> None:
    script = begun()
    for number in range(1, 20):
        script.upsert(f"store {number}", (10, 99), number)
    assert {violation.rule for violation in script.violations()} == {Rule.UNDECIDED}
