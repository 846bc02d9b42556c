"""Random calls of many clients, on a correct store and on stores with a planted fault."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.waiting import until
from workflow_store import InMemoryWorkflowStore, RunNotFoundError
from workflow_store.testing.chaos.workload import Clients, Workload
from workflow_store.testing.history import (
    RecordedStore,
    Recorder,
    Rule,
    Violation,
    check,
    read_history,
)

Call = Callable[[], Awaitable[Any]]


class Slow:
    """A store whose calls take effect some time after they begin, and return some time later."""

    def __init__(self, store: Any, rng: random.Random) -> None:
        self.store = store
        self.rng = rng

    async def pause(self, most: int = 6) -> None:
        for _ in range(self.rng.randint(0, most)):
            await asyncio.sleep(0)

    async def run(self, method: str, call: Call) -> Any:
        await self.pause()
        answer = await call()
        await self.pause()
        return answer

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        called = getattr(self.store, method)
        return lambda *args, **kwargs: self.run(method, lambda: called(*args, **kwargs))

    def fenced(self, claim: Any) -> Slow:
        return type(self)(self.store.fenced(claim), self.rng)


WRITES = {"create_run", "update_context", "upsert_step", "commit_step", "delete_run", "claim_run"}


class Late(Slow):
    """Cancelled writes take effect after the caller has gone on."""

    async def run(self, method: str, call: Call) -> Any:
        async def later() -> None:
            await self.pause(60)
            try:
                await call()
            except Exception:
                return

        try:
            return await super().run(method, call)
        except asyncio.CancelledError:
            if method in WRITES:
                asyncio.get_running_loop().create_task(later())
            raise


class Repeating(Slow):
    """Some writes are done twice, as by a retry after an answer that was lost."""

    async def run(self, method: str, call: Call) -> Any:
        if method in WRITES and self.rng.random() < 0.1:
            await super().run(method, call)
        return await super().run(method, call)


class Forgetting(Slow):
    """Some writes are acknowledged and not done."""

    async def run(self, method: str, call: Call) -> Any:
        if method == "upsert_step" and self.rng.random() < 0.02:
            await self.pause()
            return None
        return await super().run(method, call)


class Split(Slow):
    """A step and its context are two writes."""

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method != "commit_step":
            return super().__getattr__(method)

        async def commit(run: str, step: Any, context: Any) -> None:
            await self.upsert_step(run, step)
            await self.update_context(run, context)

        return commit


class Refusing(Slow):
    """Some writes are done, and raise an error that excludes it."""

    async def run(self, method: str, call: Call) -> Any:
        answer = await super().run(method, call)
        if method == "upsert_step" and self.rng.random() < 0.02:
            raise RunNotFoundError("run")
        return answer


class Unfenced(Slow):
    """A fenced view checks nothing."""

    def fenced(self, claim: Any) -> Slow:
        return self


async def violations(
    folder: Path, seed: int, kind: type[Slow], calls: int
) -> tuple[list[Violation], int]:
    """Return the violations in so many calls of three stores, and the number of calls."""
    memory = InMemoryWorkflowStore()
    recorders, tasks, clients = [], [], []
    async with memory:
        for place in range(3):
            name = f"store-{place}"
            recorders.append(Recorder(folder / f"{name}.jsonl", name))
            recorders[-1].relate_clocks()
            store = RecordedStore(kind(memory, random.Random(f"{seed}/{place}")), recorders[-1])
            workload = Workload(name, seed, time.monotonic(), tasks=4, runs=6, cancelled=0.03)
            clients.append(Clients(store, workload))
            tasks.append(asyncio.ensure_future(clients[-1].run()))
        await until(lambda: sum(sum(one.ended.values()) for one in recorders) >= calls)
        for client in clients:
            client.stopping.set()
        await asyncio.gather(*tasks)
        for run in (await memory.list_runs(limit=1000)).runs:
            await RecordedStore(memory, recorders[0]).load_run(run.run_task_id)
    for client in clients:
        assert client.undocumented == {}
    for recorder in recorders:
        recorder.close()
    history = read_history(*folder.glob("*.jsonl"))
    return check(history), len(history.operations)


@pytest.mark.parametrize("seed", range(5))
async def test_random_calls_of_a_correct_store_are_accepted(seed: int, tmp_path: Path) -> None:
    found, calls = await violations(tmp_path, seed, Slow, 1500)
    assert found == []
    assert calls >= 1500


FAULTS: dict[type[Slow], set[Rule]] = {
    Late: {Rule.LATE_WRITE},
    Repeating: {Rule.UNDONE},
    Forgetting: {Rule.UNDONE},
    Split: {Rule.WRONG_ANSWER, Rule.UNDONE},
    Refusing: {Rule.REFUSED, Rule.WRONG_ERROR},
    Unfenced: {Rule.CLAIM},
}


@pytest.mark.parametrize(("kind", "rules"), FAULTS.items(), ids=[kind.__name__ for kind in FAULTS])
async def test_a_planted_fault_is_found_in_random_calls(
    kind: type[Slow], rules: set[Rule], tmp_path: Path
) -> None:
    """The moments of the calls are those of the machine, so that some rounds may not meet it."""
    found: set[Rule] = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = {violation.rule for violation in (await violations(folder, seed, kind, 3000))[0]}
        if found & rules:
            break
    assert found & rules
