"""A few hundred simulations, the seeds that once found something, and the simulation itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from simulation.checker import explain
from simulation.environment import simulated
from simulation.loop import Deadlock, Loop, World
from simulation.model import Kind, Operation, Outcome, Written
from simulation.planted import BUGS, planted
from simulation.simulation import simulate


@pytest.fixture(autouse=True)
def _simulated() -> Iterator[None]:
    gc.disable()  # its moment would depend on the tests before
    with simulated():
        yield
    gc.enable()
    gc.collect()


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_no_order_of_events_breaks_the_contract(first: int) -> None:
    for seed in range(first, first + 50):
        result = simulate(seed)
        assert result.violations == [], f"python -m tests.simulation --seed {seed} --trace"


@pytest.mark.parametrize(
    "bug",
    [
        "calls_on_many_runs_do_not_wait",
        "commit_step_in_two",
        "delete_leaves_steps",
        "executed_twice",
        "held_by_nobody",
        "last_of_a_batch_is_lost",
        "late_write",
        "read_back_believes",
    ],
)
def test_a_planted_bug_is_found(bug: str) -> None:
    with planted(bug):
        assert any(simulate(seed).violations for seed in range(1000))


def test_each_planted_bug_has_a_description() -> None:
    assert len(BUGS) >= 20
    assert all(bug.__doc__ for bug in BUGS.values())


def test_a_seed_repeats_every_event() -> None:
    traces: list[list[str]] = []
    for seed in (7, 8, 7):
        trace: list[str] = []
        simulate(seed, trace.append)
        traces.append(trace)
    assert traces[0] == traces[2]
    assert traces[0] != traces[1]


# -- the event loop ----------------------------------------------------------------------


def test_a_virtual_day_takes_no_time() -> None:
    world = World(1)
    task = Loop(world, "process").create_task(asyncio.sleep(86_400))
    world.run(task.done, 90_000)
    assert world.time == pytest.approx(86_400)


def test_a_task_that_nothing_wakes_is_a_deadlock() -> None:
    world = World(1)
    loop = Loop(world, "process")

    async def wait() -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        world.run(loop.create_task(wait()).done, 60)


def test_a_crashed_process_does_nothing_more() -> None:
    world = World(1)
    loop = Loop(world, "process")
    done: list[str] = []
    loop.call_later(2, done.append, "late")
    world.later(1, loop.crash)
    world.run_for(3)
    assert done == []


def test_a_stopped_process_continues_where_it_was() -> None:
    world = World(1)
    loop = Loop(world, "process")
    done: list[float] = []
    loop.call_later(1, lambda: done.append(world.time))
    loop.stop_for(5)
    world.run_for(6)
    assert done == [5]


# -- the checker -------------------------------------------------------------------------

WRITTEN = {n: Written("completed", True, datetime(2026, 1, n, tzinfo=UTC)) for n in range(1, 10)}


def history(*calls: tuple[Kind, int, int, int | None, object]) -> list[Operation]:
    """Return calls of one store: kind, begin, end, number, answer."""
    return [
        Operation(
            kind, "run", "store", called, called, step="step", value=value or 0, ended=ended,
            ended_at=ended, outcome=Outcome.UNKNOWN if answer == "?" else Outcome.ANSWERED,
            answer=answer,
        )
        for kind, called, ended, value, answer in calls
    ]  # fmt: skip


CREATED = (Kind.CREATE, 1, 2, 1, None)


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(
            [CREATED, (Kind.STEP, 3, 5, 2, "?"), (Kind.GET_STEP, 4, 6, None, 2)],
            id="a call of unknown outcome has been applied",
        ),
        pytest.param(
            [CREATED, (Kind.STEP, 3, 4, 2, "?"), (Kind.GET_STEP, 5, 6, None, None)],
            id="a call of unknown outcome has not been applied",
        ),
        pytest.param(
            [CREATED, (Kind.STEP, 3, 6, 2, None), (Kind.STEP, 4, 5, 3, None),
             (Kind.GET_STEP, 7, 8, None, 3)],
            id="two concurrent writes in the order of their begins",
        ),
    ],
)  # fmt: skip
def test_a_correct_history_is_accepted(calls: list[tuple[Kind, int, int, int, object]]) -> None:
    assert explain(history(*calls), WRITTEN) is not None


def test_many_calls_of_unknown_outcome_are_decided() -> None:
    unknown = [(Kind.STEP, n, n + 1, 1 + n % 9, "?") for n in range(3, 83, 2)]
    calls = [CREATED, *unknown, (Kind.GET_STEP, 91, 92, None, 1 + 81 % 9)]
    assert explain(history(*calls), WRITTEN) is not None


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(
            [CREATED, (Kind.STEP, 3, 4, 2, None), (Kind.GET_STEP, 5, 6, None, None)],
            id="a lost write",
        ),
        pytest.param(
            [CREATED, (Kind.STEP, 3, 4, 2, None), (Kind.STEP, 5, 6, 3, None),
             (Kind.GET_STEP, 7, 8, None, 2)],
            id="writes in the wrong order",
        ),
        pytest.param(
            [CREATED, (Kind.STEP, 3, 4, 2, "?"), (Kind.STEP, 5, 6, 3, None),
             (Kind.GET_STEP, 7, 8, None, 2)],
            id="a late write after an acknowledged one",
        ),
        pytest.param(
            [CREATED, (Kind.STEP, 3, 4, 2, "?"), (Kind.GET_STEP, 5, 6, None, None),
             (Kind.GET_STEP, 7, 8, None, 2)],
            id="a late write after a read",
        ),
        pytest.param(
            [CREATED, (Kind.COMMIT, 3, 4, 2, None),
             (Kind.LOAD, 5, 6, None, ((1, 1), (("step", 2),)))],
            id="half of a commit",
        ),
    ],
)  # fmt: skip
def test_a_wrong_history_is_rejected(calls: list[tuple[Kind, int, int, int, object]]) -> None:
    assert explain(history(*calls), WRITTEN) is None
