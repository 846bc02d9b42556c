"""A store that records its calls."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, Unpack

from ...pagination import RunFilters
from ...state import JsonValue, WorkflowExecutionState, WorkflowStepState
from ...store import (
    ResumableWorkflowStore,
    RunClaim,
    RunPage,
    RunSnapshot,
    StoreView,
    WaitingStep,
)

__all__ = ["RecordedStore", "Recorder"]

_T = TypeVar("_T")


class Recorder:
    """Appends the records of one store object to a file.

    Each line is written at once, so that the records survive `kill -9` of the process.

    Args:
        file: a file of this recorder alone.
        store: the name of the store object, unique among all processes.
    """

    def __init__(self, file: Path, store: str) -> None:
        self.store = store
        self.calls: dict[int, str] = {}
        """The calls under way, by their numbers."""
        self.ended: dict[str, int] = {}
        """How many calls have ended: those that returned under the name of their method, the
        others under the name of their error."""
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._number = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def relate_clocks(self) -> None:
        """Record that the server's clock is that of this machine."""
        self.write({"clock": {"monotonic": time.monotonic_ns(), "server": time.time_ns()}})

    def clock_is_set(self) -> None:
        """Record that the server's clock is set to another time meanwhile."""
        self.write({"clock": None})

    def write(self, record: dict[str, Any]) -> None:
        """Append a record."""
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    async def call(
        self,
        call: Callable[[], Awaitable[_T]],
        method: str,
        run: str,
        arguments: dict[str, Any],
        *,
        fence: RunClaim | None = None,
        encode: Callable[[_T], Any] = lambda _: None,
    ) -> _T:
        """Await a call between its two records."""
        with self._numbered(method) as number:
            record = {
                "call": number,
                "store": self.store,
                "run": run,
                "method": method,
                "arguments": arguments,
            }
            if fence is not None:
                record["fence"] = (fence.run_task_id, fence.token)
            self.write({**record, "began": time.monotonic_ns()})
            try:
                answer = await call()
            except BaseException as error:
                self._end(number, type(error).__name__, error=type(error).__name__)
                raise
            self._end(number, method, answer=encode(answer))
            return answer

    @contextlib.contextmanager
    def _numbered(self, method: str) -> Iterator[int]:
        self._number = number = self._number + 1
        self.calls[number] = method
        try:
            yield number
        finally:
            del self.calls[number]

    def _end(self, number: int, kind: str, **end: Any) -> None:
        self.write({"call": number, "store": self.store, "ended": time.monotonic_ns(), **end})
        self.ended[kind] = self.ended.get(kind, 0) + 1


class RecordedStore(StoreView, ResumableWorkflowStore):
    """A view of a store that records each call; it is open while the store is.

    A store with the seven methods only is recorded, too; the other methods are then missing.
    Listings and `find_waiting_step` are passed on without a record.

    Args:
        store: the store.
        recorder: writes the records.
        fence: the claim, if the store is a fenced view.
    """

    def __init__(self, store: Any, recorder: Recorder, fence: RunClaim | None = None) -> None:
        self._store = store
        self._recorder = recorder
        self._fence = fence

    async def _call(
        self,
        call: Callable[[], Awaitable[_T]],
        method: str,
        run: str,
        *,
        encode: Callable[[_T], Any] = lambda _: None,
        **arguments: Any,
    ) -> _T:
        return await self._recorder.call(
            call, method, run, arguments, fence=self._fence, encode=encode
        )

    # -- runs and steps -------------------------------------------------------------------

    async def create_run(self, state: WorkflowExecutionState) -> None:
        await self._call(
            lambda: self._store.create_run(state),
            "create_run", state.run_task_id, state=_wire(state),
        )  # fmt: skip

    async def get_run(self, run_task_id: str) -> WorkflowExecutionState | None:
        return await self._call(
            lambda: self._store.get_run(run_task_id), "get_run", run_task_id, encode=_wire
        )

    async def update_context(self, run_task_id: str, context: JsonValue) -> None:
        await self._call(
            lambda: self._store.update_context(run_task_id, context),
            "update_context", run_task_id, context=context,
        )  # fmt: skip

    async def delete_run(self, run_task_id: str) -> None:
        await self._call(lambda: self._store.delete_run(run_task_id), "delete_run", run_task_id)

    async def upsert_step(self, run_task_id: str, step: WorkflowStepState) -> None:
        await self._call(
            lambda: self._store.upsert_step(run_task_id, step),
            "upsert_step", run_task_id, step=_wire(step),
        )  # fmt: skip

    async def get_step(self, run_task_id: str, step_id: str) -> WorkflowStepState | None:
        return await self._call(
            lambda: self._store.get_step(run_task_id, step_id),
            "get_step", run_task_id, encode=_wire, step_id=step_id,
        )  # fmt: skip

    async def list_steps(self, run_task_id: str) -> list[WorkflowStepState]:
        return await self._call(
            lambda: self._store.list_steps(run_task_id),
            "list_steps", run_task_id, encode=lambda steps: [*map(_wire, steps)],
        )  # fmt: skip

    async def load_run(self, run_task_id: str) -> RunSnapshot | None:
        return await self._call(
            lambda: self._store.load_run(run_task_id), "load_run", run_task_id, encode=_snapshot
        )

    async def commit_step(
        self, run_task_id: str, step: WorkflowStepState, context: JsonValue
    ) -> None:
        await self._call(
            lambda: self._store.commit_step(run_task_id, step, context),
            "commit_step", run_task_id, step=_wire(step), context=context,
        )  # fmt: skip

    async def purge_runs(self, **arguments: Any) -> int:
        return await self._call(
            lambda: self._store.purge_runs(**arguments), "purge_runs", "", encode=int
        )

    # -- claims ---------------------------------------------------------------------------

    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        return await self._call(
            lambda: self._store.claim_run(run_task_id, owner=owner, lease_s=lease_s),
            "claim_run", run_task_id, encode=_claim, owner=owner, lease_s=lease_s,
        )  # fmt: skip

    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        return await self._call(
            lambda: self._store.claim_abandoned_runs(owner=owner, lease_s=lease_s, limit=limit),
            "claim_abandoned_runs", "", encode=lambda claims: [*map(_claim, claims)],
            owner=owner, lease_s=lease_s, limit=limit,
        )  # fmt: skip

    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        return await self._call(
            lambda: self._store.renew_claim(claim),
            "renew_claim", claim.run_task_id, encode=_claim, claim=_claim(claim),
        )  # fmt: skip

    async def release_claim(self, claim: RunClaim) -> None:
        await self._call(
            lambda: self._store.release_claim(claim),
            "release_claim", claim.run_task_id, claim=_claim(claim),
        )  # fmt: skip

    def fenced(self, claim: RunClaim) -> RecordedStore:
        return RecordedStore(self._store.fenced(claim), self._recorder, claim)

    # -- without a record -----------------------------------------------------------------

    async def list_runs(self, **filters: Unpack[RunFilters]) -> RunPage:
        page: RunPage = await self._store.list_runs(**filters)
        return page

    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        step: WaitingStep | None = await self._store.find_waiting_step(wait_task_id)
        return step


def _wire(state: WorkflowExecutionState | WorkflowStepState | None) -> Any:
    return None if state is None else json.loads(state.model_dump_json())


def _snapshot(snapshot: RunSnapshot | None) -> Any:
    if snapshot is None:
        return None
    return {"run": _wire(snapshot.run), "steps": [*map(_wire, snapshot.steps)]}


def _claim(claim: RunClaim | None) -> Any:
    if claim is None:
        return None
    return {**claim._asdict(), "expires_at": int(claim.expires_at.timestamp() * 1_000_000) * 1000}
