"""One simulation: processes, clients, faults, and the check of what they saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from workflow_store import InMemoryWorkflowStore

from .checker import Undecided, explain
from .environment import new_store, new_world
from .history import History
from .loop import Deadlock, Loop, World
from .model import Kind, Operation, Outcome
from .workload import Client, Process

__all__ = ["Result", "simulate"]

_T = TypeVar("_T")

LIMIT_S = 300.0
"""A simulation that takes longer hangs: all timeouts together are shorter."""


@dataclass
class Result:
    """What a simulation found.

    Attributes:
        seed: replays it.
        calls: how many calls were made.
        violations: what is wrong; empty if nothing is.
        history: the calls, for a person.
    """

    seed: int
    calls: int
    violations: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)


def simulate(seed: int, trace: Callable[[str], None] | None = None) -> Result:
    """Run the simulation of a seed, inside of `environment.simulated`."""
    world = new_world(seed, trace)
    random = world.random
    runs = [f"run-{number}" for number in range(random.choice([1, 1, 2, 3]))]
    history = History(world, runs)
    processes = _processes(world)
    for process in processes:
        _await(world, process.store.open(), process)
    share = random.randint(10, 40)
    weights = _weights(random)
    count = random.randint(2, 4)
    cancels = random.choice([0.0, 0.05, 0.3])
    pause_s = random.choice([0.005, 0.05, 1.0])
    tasks: list[asyncio.Task[None]] = []
    for number in range(count):
        process = processes[number % len(processes)]
        client = Client(
            process, history, f"owner-{number}", weights=weights, cancels=cancels, pause_s=pause_s
        )
        tasks.append(process.loop.create_task(client.work(share // count)))
    _schedule_faults(world, processes, history)
    try:
        for number, task in enumerate(tasks):
            loop = processes[number % len(processes)].loop
            world.run(lambda: task.done() or loop.is_dead, LIMIT_S)  # noqa: B023
            if task.done():
                task.result()
        _heal(world)
        world.run_for(10.0)  # what was sent arrives, and what was paused goes on
        _read_at_the_end(world, history, [p for p in processes if not p.loop.is_dead])
    except Deadlock:
        calls = [str(operations[0]) for operations in history.open_calls.values()]
        history.violations.append(f"a hang: {calls or 'of open or close'}")
    violations = [*history.violations, *(f"an error in a callback: {e!r}" for e in world.errors)]
    for run, operations in history.operations.items():
        try:
            if explain(operations, history.written) is None:
                violations.append(f"no order of the calls on {run} explains their answers")
        except Undecided:
            violations.append(f"undecided whether an order of the calls on {run} explains them")
    lines = [
        str(operation)
        for operations in history.operations.values()
        for operation in sorted(operations, key=lambda operation: operation.called)
    ]
    return Result(seed, history.calls, violations, lines)


def _processes(world: World) -> list[Process]:
    random = world.random
    if random.random() < 0.05:
        return [Process(Loop(world, "process-0"), InMemoryWorkflowStore())]
    pooled = random.random() < 0.25
    size = random.choice([1, 2, 5])
    processes = []
    for number in range(random.choice([1, 2, 2])):
        loop = Loop(world, f"process-{number}", skew_s=random.choice([0.0, 0.0, -5.0, 5.0]))
        processes.append(Process(loop, new_store(loop, size, pooled=pooled)))
    return processes


def _weights(random: Random) -> dict[Kind, int]:
    """Return how often each method is called; each seed leaves some out."""
    if random.random() < 0.2:
        return dict(_CLAIMS)
    shares = dict.fromkeys((kind for kind in Kind if kind is not Kind.NOTHING), 0.7) | _RARE
    weights = {
        kind: 1 if share < 0.5 else random.choice([1, 1, 3])
        for kind, share in shares.items()
        if random.random() < share
    }
    return {Kind.CREATE: 2, Kind.STEP: 3, **weights}


# Through SQLAlchemy, a call takes ten times as long as others.
_RARE = {
    Kind.SUMMARY: 0.15, Kind.PURGE: 0.2, Kind.TAKE: 0.2, Kind.CLAIM: 0.5, Kind.RELEASE: 0.3,
    Kind.DELETE: 0.49,
}  # fmt: skip
_CLAIMS = {
    Kind.CREATE: 1,
    Kind.CLAIM: 4,
    Kind.TAKE: 1,
    Kind.RENEW: 2,
    Kind.RELEASE: 1,
    Kind.STEP: 3,
}


def _schedule_faults(world: World, processes: list[Process], history: History) -> None:
    """Plan what goes wrong at a time, not with a message."""
    random, server = world.random, world.server

    def terminate_one() -> None:
        if server.sessions:
            server.sessions[random.choice(list(server.sessions))].terminate()

    def crash() -> None:
        processes[-1].loop.crash()
        history.abandon(processes[-1].name)
        for session in list(server.sessions.values()):
            if session.client.loop is processes[-1].loop:
                session.client.hang_up()

    for _ in range(random.choice([0, 0, 0, 1, 3])):
        world.later(random.random() * 2, server.restart, random.choice([0.02, 0.2, 2.0]))
    for _ in range(random.choice([0, 0, 2, 5])):
        world.later(random.random() * 2, terminate_one)
    for _ in range(random.choice([0, 0, 1])):
        process = random.choice(processes)
        world.later(random.random() * 2, process.loop.stop_for, random.random() * 3)
    if len(processes) > 1 and random.random() < 0.2:
        world.later(random.random() * 2, crash)


def _heal(world: World) -> None:
    world.faults.is_healed = True
    world.server._start()
    for session in list(world.server.sessions.values()):
        session.resume()


def _await(world: World, coroutine: Coroutine[Any, Any, _T], process: Process) -> _T:
    task = process.loop.create_task(coroutine)
    world.run(task.done, LIMIT_S)
    return task.result()


def _read_at_the_end(world: World, history: History, processes: list[Process]) -> None:
    """Read each run through each store object: all of them work, and see the same."""
    for process in processes:
        for run in history.runs:
            operation = Operation(
                Kind.LOAD, run, process.name, history.tick(), history.now(),
                outcome=Outcome.ANSWERED,
            )  # fmt: skip
            try:
                snapshot = _await(world, process.store.load_run(run), process)
            except Deadlock:
                raise
            except Exception as error:
                history.violations.append(f"not available when all is well again: {error!r}")
                continue
            operation.ended, operation.ended_at = history.tick(), history.now()
            operation.answer = history.seen_snapshot(snapshot)
            history.operations[run].append(operation)
    for process in processes:
        _await(world, process.store.close(), process)
