"""Clients that call a store at random."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from workflow_store import ResumableWorkflowStore, RunClaim

from .history import START, History
from .loop import Loop
from .model import CHANGES, Kind, Operation, Outcome

__all__ = ["Client", "Process"]


class Process:
    """A process with one store object."""

    def __init__(self, loop: Loop, store: ResumableWorkflowStore) -> None:
        self.loop = loop
        self.store = store
        self.name = loop.name


class Client:
    """A task that calls the store of its process, one call or a few at a time.

    Args:
        process: the process.
        history: records the calls.
        name: the owner of its claims.
        weights: how often it calls each method.
        cancels: the share of calls that are cancelled.
        pause_s: the longest pause between calls.
    """

    def __init__(
        self,
        process: Process,
        history: History,
        name: str,
        *,
        weights: dict[Kind, int],
        cancels: float,
        pause_s: float,
    ) -> None:
        self._process = process
        self._history = history
        self._name = name
        self._random = history.world.random
        self._kinds, self._weights = list(weights), list(weights.values())
        self._cancels = cancels
        self._pause_s = pause_s
        self._claims: list[RunClaim] = []

    async def work(self, calls: int) -> None:
        """Make calls, awaited one after the other or a few at once."""
        random = self._random
        while calls > 0:
            at_once = 1 if random.random() < 0.7 else random.randint(2, 4)
            tasks = [self._start() for _ in range(min(calls, at_once))]
            calls -= len(tasks)
            await asyncio.wait(tasks)
            for task in tasks:
                task.result()
            if random.random() < 0.7:
                await asyncio.sleep(random.random() * self._pause_s)

    def _start(self) -> asyncio.Task[None]:
        (kind,) = self._random.choices(self._kinds, self._weights)
        run = self._random.choice(self._history.runs)
        task = asyncio.get_running_loop().create_task(self._call(kind, run))
        if self._random.random() < self._cancels:
            # After the first step of the task: before it, no call would be recorded.
            delay_s = self._random.choice([0.0, 0.001, 0.01, 0.1, 1.0]) * self._random.random()
            asyncio.get_running_loop().call_later(delay_s, task.cancel)
        return task

    def _operation(self, kind: Kind, run: str, **values: Any) -> Operation:
        history = self._history
        return Operation(
            kind, run, self._process.name, history.tick(), history.now(), owner=self._name, **values
        )

    async def _call(self, kind: Kind, run: str) -> None:
        claims = [claim for claim in self._claims if claim.run_task_id == run]
        if kind in {Kind.RENEW, Kind.RELEASE}:
            if claims:
                await self._end_or_renew(kind, run, self._random.choice(claims))
        elif kind in {Kind.CLAIM, Kind.TAKE}:
            await self._claim(kind, run)
        elif kind in {Kind.PURGE, Kind.SUMMARY}:
            await self._on_all_runs(kind)
        elif kind in CHANGES:
            claim = self._random.choice(claims) if claims and self._random.random() < 0.7 else None
            await self._write(kind, run, claim)
        else:
            await self._read(kind, run)

    async def _write(self, kind: Kind, run: str, claim: RunClaim | None) -> None:
        history, store = self._history, self._process.store
        value, step_id = history.new_value(), f"step-{self._random.randrange(3)}"
        token = None
        if claim is not None:
            store, token = store.fenced(claim), claim.token
        operation = self._operation(kind, run, value=value, step=step_id, token=token)
        context = {"n": value}
        step = history.step(run, step_id, value) if kind in {Kind.STEP, Kind.COMMIT} else None
        if kind is Kind.CREATE:
            state = history.run(run, value)
            await history.record([operation], lambda: store.create_run(state))
            state.context["n"] = -1  # the store must not notice
        elif kind is Kind.CONTEXT:
            await history.record([operation], lambda: store.update_context(run, context))
        elif kind is Kind.DELETE:
            await history.record([operation], lambda: store.delete_run(run))
        elif kind is Kind.STEP:
            assert step is not None
            await history.record([operation], lambda: store.upsert_step(run, step))
        else:
            assert step is not None
            await history.record([operation], lambda: store.commit_step(run, step, context))
        context["n"] = -1
        if operation.outcome is Outcome.UNKNOWN and self._random.random() < 0.5:
            await self._look_again(operation)
        if step is not None and isinstance(step.result, dict):
            step.result["n"] = -1

    async def _look_again(self, write: Operation) -> None:
        """Ask whether a write took effect, as a client does that does not know it."""
        kinds = [Kind.GET_STEP, Kind.LOAD]
        if write.kind in {Kind.STEP, Kind.COMMIT}:
            kinds += [Kind.WAITING, Kind.WAITING]
        if self._random.random() < 0.1:
            await self._on_all_runs(Kind.SUMMARY)
        else:
            await self._read(self._random.choice(kinds), write.run, write)

    async def _read(self, kind: Kind, run: str, write: Operation | None = None) -> None:
        """Read a run; what a write was to change, if one is passed."""
        history, store = self._history, self._process.store
        step = write.step if write else f"step-{self._random.randrange(3)}"
        operation = self._operation(kind, run, step=step)
        if kind is Kind.WAITING:
            if not history.step_runs:
                return
            values = list(history.step_runs)
            operation.value = write.value if write else self._random.choice(values)
            operation.run = history.step_runs[operation.value]
        call, see = {
            Kind.GET_RUN: (lambda: store.get_run(run), history.seen_run),
            Kind.GET_STEP: (lambda: store.get_step(run, step), history.seen_step),
            Kind.LIST_STEPS: (lambda: store.list_steps(run), history.seen_steps),
            Kind.LOAD: (lambda: store.load_run(run), history.seen_snapshot),
            Kind.WAITING: (
                lambda: store.find_waiting_step(f"wait-{operation.value}"),
                history.seen_waiting,
            ),
        }[kind]

        def seen(answer: Any) -> None:
            operation.answer = see(answer)  # type: ignore[operator]
            if kind is Kind.WAITING and answer is not None:
                operation.run, operation.answer = operation.answer
                if operation.run not in history.operations:
                    history.violations.append(f"an unknown run: {operation.run}")

        await history.record([operation], call, seen)

    async def _on_all_runs(self, kind: Kind) -> None:
        history, store = self._history, self._process.store
        operations = [self._operation(kind, run) for run in history.runs]
        operation = operations[0]
        for other in operations:
            other.called = operation.called
        if kind is Kind.PURGE:
            bound = START + timedelta(seconds=self._random.randrange(len(history.written) + 2))
            for operation in operations:
                operation.answer, operation.is_optional = bound, True

            def purged(count: int) -> None:
                if count == 0:
                    for operation in operations:
                        operation.kind = Kind.NOTHING

            await history.record(operations, lambda: store.purge_runs(created_before=bound), purged)
            return

        def listed(page: Any) -> None:
            found = {run.run_task_id: run for run in page.runs}
            for operation in operations:
                run = found.get(operation.run)
                if run is not None:
                    value = round((run.created_at - START).total_seconds())
                    counts = {status.value: n for status, n in run.step_counts.items() if n}
                    operation.answer = (value, counts)

        await history.record(operations, lambda: store.list_runs(limit=10), listed)

    async def _claim(self, kind: Kind, run: str) -> None:
        history, store = self._history, self._process.store
        lease_s = self._random.choice([0.05, 0.5, 3.0])
        if kind is Kind.CLAIM:
            operation = self._operation(kind, run, lease_s=lease_s)

            def claimed(claim: RunClaim | None) -> None:
                operation.answer = claim and self._seen_claim(operation, claim)

            claim = await history.record(
                [operation],
                lambda: store.claim_run(run, owner=self._name, lease_s=lease_s),
                claimed,
            )
            if claim is not None:
                self._claims.append(claim)
            return
        operations = [self._operation(kind, run, lease_s=lease_s) for run in history.runs]
        for other in operations:
            other.called = operations[0].called

        def taken(claims: list[RunClaim]) -> None:
            by_run = {claim.run_task_id: claim for claim in claims}
            for operation in operations:
                if operation.run in by_run:
                    operation.answer = self._seen_claim(operation, by_run[operation.run])
                else:
                    operation.kind = Kind.NOTHING

        claims = await history.record(
            operations,
            lambda: store.claim_abandoned_runs(owner=self._name, lease_s=lease_s),
            taken,
        )
        self._claims += claims or []

    async def _end_or_renew(self, kind: Kind, run: str, claim: RunClaim) -> None:
        history, store = self._history, self._process.store
        operation = self._operation(kind, run, token=claim.token, lease_s=claim.lease_s)

        def renewed(claim: RunClaim | None) -> None:
            if claim is not None:
                operation.answer = self._seen_claim(operation, claim)

        if kind is Kind.RENEW:
            await history.record([operation], lambda: store.renew_claim(claim), renewed)
        else:
            await history.record([operation], lambda: store.release_claim(claim))

    def _seen_claim(self, operation: Operation, claim: RunClaim) -> tuple[int, float]:
        """Return token and end of a lease, and check that the lease is whole."""
        ends = claim.expires_at.timestamp()
        if (
            not operation.called_at - 0.00001
            <= ends - claim.lease_s
            <= operation.ended_at + 0.00001
        ):
            self._history.violations.append(f"a lease that is not whole: {claim} of {operation}")
        return claim.token, ends
