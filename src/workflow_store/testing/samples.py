"""Sample runs, steps, times, identifiers and JSON values, and sample calls of a store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from .. import json_codec
from ..state import JsonValue, WorkflowExecutionState, WorkflowStepState
from ..store import WorkflowStore

__all__ = [
    "BAD_IDENTIFIERS",
    "BAD_TIMES",
    "CALLS",
    "FOREIGN_VALUES",
    "HOSTILE_IDENTIFIERS",
    "HOSTILE_VALUES",
    "MICROSECOND",
    "START",
    "UTC_PLUS_0545",
    "a_run",
    "a_step",
    "create_runs",
    "exact",
    "hour",
    "step_ids",
]


def a_run(run_task_id: str = "run", **fields: Any) -> WorkflowExecutionState:
    """Return a sample run.

    Args:
        run_task_id: the id of the run.
        fields: fields of `WorkflowExecutionState`; required ones that are left out get a
            sample value, the others their default.
    """
    fields = {
        "agent_id": "agent",
        "thread_id": "thread",
        "user_id": "user",
        "definition": {"steps": [{"id": "fetch"}]},
        **fields,
    }
    return WorkflowExecutionState(run_task_id=run_task_id, **fields)


def a_step(step_id: str = "step", **fields: Any) -> WorkflowStepState:
    """Return a sample step.

    Args:
        step_id: the id of the step.
        fields: fields of `WorkflowStepState`; those that are left out have their default.
    """
    return WorkflowStepState(step_id=step_id, **fields)


def exact(value: Any) -> str:
    """Return the JSON text of a value, for comparisons that are stricter than `==`.

    Two texts are equal only if the values are equal in type, in every bit and in the order of
    keys: `1`, `1.0` and `True` differ, and so do `0.0` and `-0.0`.

    Raises:
        InvalidStateError: the value is not JSON.
    """
    return json_codec.encode(value, field="value")


def _nested(levels: int) -> Any:
    value: Any = "core"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def _circular() -> Any:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    return value


HOSTILE_VALUES: dict[str, JsonValue] = {
    "null": None,
    "booleans": [True, False],
    "one is not one point zero is not true": [1, 1.0, True],
    "zeros": [0, 0.0, -0.0, False],
    "floats": [0.1, 1e-320, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 1e16, 1e22],
    "integers of 64 bits and more": [2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**64), 10**400],
    "an integer of 4,300 digits": 10**4300 - 1,
    "a negative integer of 4,300 digits": 1 - 10**4300,
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f\u2028\u2029\ufeff",
    "lone surrogates": ["\ud800", "\udfff", "\udc00\ud800", "x\ud83dx"],
    "characters beyond the basic plane": "😀 𝕏 \U0010ffff",
    "a lone surrogate before a character beyond the basic plane": "\ud83d😀",
    "quotes and backslashes": "\"\\'/\\u0000 ${x} {{y}} %s %(z)s :name ?1 $1",
    "key order": {"z": 1, "a": 2, "M": 3, "": 4, "10": 5, "9": 6},
    "keys of all kinds": {"\0": 1, "\ud800": 2, "é": 3, "e\u0301": 4, "a.b[0]": 5},
    "empty containers": [{}, [], "", {"a": {}, "b": []}],
    "128 levels": _nested(128),
    "text that looks like something else": ["null", "NaN", "2026-01-01T00:00:00Z", "1.0", "[]"],
}
"""JSON values that databases and serializers tend to change, each under a description."""

FOREIGN_VALUES: dict[str, tuple[Any, str]] = {
    "NaN": ({"a": [0, math.nan]}, ".a[1]"),
    "infinity": ([math.inf], "[0]"),
    "minus infinity": ({"x": {"y": -math.inf}}, ".x.y"),
    "bytes": ({"a": b"x"}, ".a"),
    "a set": ([[{1}]], "[0][0]"),
    "an object": ({"a": object()}, ".a"),
    "a complex number": ([1j], "[0]"),
    "a key that is an integer": ({"a": {1: 2}}, ".a"),
    "a key that is None": ({None: 1}, ""),
    "a high and a low surrogate side by side": ({"a": "\ud83d\ude00"}, ".a"),
    "such a pair in a key": ([{"\ud83d\ude00": 1}], "[0]"),
    "an integer of 4,301 digits": ({"a": [10**4300]}, ".a[0]"),
    "a negative integer of 4,301 digits": ([{"x": -(10**4300)}], "[0].x"),
    "an integer of a megabyte": ([1 << 8_000_000], "[0]"),
    "129 levels": (_nested(129), ".in[0].in"),
    "a container that holds itself": (_circular(), ".a[0].a"),
}
"""Values that are not JSON, each with the path inside it that the error must name."""

BAD_IDENTIFIERS: tuple[Any, ...] = ("", "a\0b", "\ud800", "x" * 1025, "é" * 513, None, 7, b"run")
"""Values that are not identifiers."""

HOSTILE_IDENTIFIERS = (
    " ",
    "a b",
    "A",
    "a",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "😀",
    "'; DROP TABLE runs; --",
    "%",
    "_",
    "\\",
    '"',
    "\x01\n\t",
    "None",
    "x" * 1024,
    "é" * 512,
)
"""Identifiers that differ in their bytes, while some collations treat some of them as equal."""

START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UTC_PLUS_0545 = timezone(timedelta(hours=5, minutes=45))

BAD_TIMES: tuple[Any, ...] = (
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(1, 1, 1, tzinfo=UTC_PLUS_0545),
    date(2026, 1, 1),
    "2026-01-01T00:00:00Z",
    0,
)
"""Values that are not aware datetimes, or that UTC cannot represent."""

CALLS: dict[str, Callable[[WorkflowStore, Any], Awaitable[Any]]] = {
    "create_run": lambda store, _: store.create_run(a_run()),
    "get_run": lambda store, run: store.get_run(run),
    "update_context": lambda store, run: store.update_context(run, {}),
    "delete_run": lambda store, run: store.delete_run(run),
    "upsert_step": lambda store, run: store.upsert_step(run, a_step()),
    "get_step": lambda store, run: store.get_step(run, "step"),
    "get_step by step": lambda store, step: store.get_step("run", step),
    "list_steps": lambda store, run: store.list_steps(run),
}
"""A call of each of the seven methods, with one identifier as its argument."""


def hour(number: int) -> datetime:
    """Return the time this many hours after `START`."""
    return START + timedelta(hours=number)


async def create_runs(store: WorkflowStore, runs: Iterable[WorkflowExecutionState]) -> None:
    await asyncio.gather(*(store.create_run(run) for run in runs))


async def step_ids(store: WorkflowStore, run_task_id: str = "run") -> list[str]:
    """Return the ids of a run's steps in their order."""
    return [step.step_id for step in await store.list_steps(run_task_id)]
