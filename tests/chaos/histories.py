"""Short histories, written by hand."""

from __future__ import annotations

import itertools
from typing import Any

from workflow_store.testing.history import Fence, History, Operation, Violation, check

Clock = tuple[int, int | None]
UNAVAILABLE = "StoreUnavailableError"
CANCELLED = "CancelledError"
NOT_FOUND = "RunNotFoundError"
LOST = "ClaimLostError"


def run(number: int = 0, context: object = 0) -> dict[str, Any]:
    """The run `r`, as a store shows it."""
    return {"run_task_id": "r", "definition": {"number": number}, "context": context}


def step(number: int, step_id: str = "s") -> dict[str, Any]:
    return {"step_id": step_id, "status": "running", "result": number}


def claim(token: int, until: int, *, owner: str = "me", lease: int = 10) -> dict[str, Any]:
    """A claim on `r` until a second of the server's clock."""
    return {
        "run_task_id": "r", "owner": owner, "token": token, "lease_s": lease,
        "expires_at": until * 10**9,
    }  # fmt: skip


class Script:
    """Builds a history call by call; times are seconds."""

    def __init__(self) -> None:
        self.history = History(server_clock_ns=0)
        self._numbers = itertools.count()

    def call(
        self, store: str, at: Clock, method: str, answer: object = None, *,
        error: str | None = None, fence: int = 0, run: str = "r", **arguments: object,
    ) -> Script:  # fmt: skip
        began, ended = at
        self.history.operations.append(
            Operation(
                next(self._numbers), store, run, method, arguments, began * 10**9,
                Fence("r", fence) if fence else None,
                None if ended is None else ended * 10**9, answer, error,
            )
        )  # fmt: skip
        return self

    def gone(self, store: str, at: int) -> Script:
        self.history.gone[store] = at * 10**9
        return self

    # -- methods --------------------------------------------------------------------------

    def create(
        self, store: str, at: Clock, number: int = 0, context: object = 0, **end: Any
    ) -> Script:
        return self.call(store, at, "create_run", state=run(number, context), **end)

    def delete(self, store: str, at: Clock, **end: Any) -> Script:
        return self.call(store, at, "delete_run", **end)

    def context(self, store: str, at: Clock, context: object, **end: Any) -> Script:
        return self.call(store, at, "update_context", context=context, **end)

    def upsert(self, store: str, at: Clock, number: int, step_id: str = "s", **end: Any) -> Script:
        return self.call(store, at, "upsert_step", step=step(number, step_id), **end)

    def commit(self, store: str, at: Clock, number: int, context: object, **end: Any) -> Script:
        return self.call(store, at, "commit_step", step=step(number), context=context, **end)

    def sees(self, store: str, at: Clock, number: int | None, step_id: str = "s") -> Script:
        answer = None if number is None else step(number, step_id)
        return self.call(store, at, "get_step", answer, step_id=step_id)

    def lists(self, store: str, at: Clock, *steps: tuple[int, str]) -> Script:
        return self.call(store, at, "list_steps", [step(*one) for one in steps])

    def loads(
        self, store: str, at: Clock, context: object, *steps: tuple[int, str], number: int = 0
    ) -> Script:
        answer = {"run": run(number, context), "steps": [step(*one) for one in steps]}
        return self.call(store, at, "load_run", answer)

    def claims(
        self, store: str, at: Clock, answer: Any, *, owner: str = "me", **end: Any
    ) -> Script:
        return self.call(store, at, "claim_run", answer, owner=owner, lease_s=10, **end)

    def renews(self, store: str, at: Clock, token: int, until: int = 0, **end: Any) -> Script:
        answer = claim(token, until) if until else None
        return self.call(store, at, "renew_claim", answer, claim=claim(token, 0), **end)

    def releases(self, store: str, at: Clock, token: int, **end: Any) -> Script:
        return self.call(store, at, "release_claim", claim=claim(token, 0), **end)

    # -- the verdict ----------------------------------------------------------------------

    def violations(self) -> list[Violation]:
        return check(self.history)


def begun() -> Script:
    """A history that begins with a run `r` with a step `s`, both with 0."""
    return Script().create("a", (0, 1)).upsert("a", (2, 3), 0)
