"""The same call on all stores at once, with exact comparison of the answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from workflow_store import (
    ResumableWorkflowStore,
    RunSummary,
    WorkflowExecutionState,
    WorkflowStepState,
    WorkflowStoreError,
)

Call: TypeAlias = Callable[[ResumableWorkflowStore], Awaitable[object]]


def exact(value: object) -> object:  # noqa: PLR0911 - one for each kind of value
    """Return a form that differs by type, sign of zero and order of keys, too."""
    match value:
        case WorkflowExecutionState() | WorkflowStepState() | RunSummary():
            return (type(value), [(name, exact(field)) for name, field in value])
        case Counter():
            return (Counter, sorted(value.items()))
        case tuple():
            return (type(value), [exact(item) for item in value])
        case dict():
            return (dict, [(exact(key), exact(item)) for key, item in value.items()])
        case list():
            return (list, [exact(item) for item in value])
        case float():
            return (type(value), value.hex())
        case int():
            return (type(value), hex(value))  # `repr` stops at 4,300 digits
        case datetime():
            return (datetime, value.isoformat(), value.tzinfo is UTC)
        case _:
            return (type(value), value)


def answer(value: Any) -> object:
    """Return the exact form of states, with their JSON."""
    states = value if isinstance(value, list) else [value]
    texts = [state.model_dump_json() if state is not None else None for state in states]
    return (exact(value), texts)


class AllStores:
    """Our stores, open in one event loop; makes each call on all of them."""

    def __init__(self, runner: asyncio.Runner, stores: dict[str, ResumableWorkflowStore]) -> None:
        self.runner = runner
        self.stores = stores

    def outcomes(self, call: Call) -> dict[str, object]:
        """Return the result or the error of each store."""

        async def outcome(store: ResumableWorkflowStore) -> object:
            try:
                return await call(store)
            except WorkflowStoreError as error:
                return error

        async def all_outcomes() -> list[object]:
            return await asyncio.gather(*map(outcome, self.stores.values()))

        return dict(zip(self.stores, self.runner.run(all_outcomes()), strict=True))

    def returns(self, call: Call) -> object:
        """Make a call that must return the same on all stores, and return that."""
        found = self.outcomes(call)
        for outcome in found.values():
            if isinstance(outcome, WorkflowStoreError):
                raise outcome
        answers = {name: answer(outcome) for name, outcome in found.items()}
        assert all(answers[name] == answers["memory"] for name in answers), found
        return found["memory"]

    def raises(self, call: Call, expected: type[WorkflowStoreError]) -> str:
        """Make a call that must fail alike on all stores, and return the message."""
        found = self.outcomes(call)
        assert {name: type(outcome) for name, outcome in found.items()} == dict.fromkeys(
            found, expected
        )
        messages = {str(outcome) for outcome in found.values()}
        assert len(messages) == 1, messages
        return messages.pop()
