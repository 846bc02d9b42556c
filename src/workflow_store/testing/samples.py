"""States and values for tests."""

from __future__ import annotations

import math
from typing import Any

from .. import json_codec
from ..state import WorkflowExecutionState, WorkflowStepState

__all__ = [
    "BAD_IDENTIFIERS",
    "FOREIGN_VALUES",
    "HOSTILE_IDENTIFIERS",
    "HOSTILE_VALUES",
    "a_run",
    "a_step",
    "exact",
]


def a_run(run_task_id: str = "run", **fields: Any) -> WorkflowExecutionState:
    """Make a run; what is not named is filled in."""
    fields = {
        "agent_id": "agent",
        "thread_id": "thread",
        "user_id": "user",
        "definition": {"steps": [{"id": "fetch"}]},
        **fields,
    }
    return WorkflowExecutionState(run_task_id=run_task_id, **fields)


def a_step(step_id: str = "step", **fields: Any) -> WorkflowStepState:
    """Make a step; what is not named has its default."""
    return WorkflowStepState(step_id=step_id, **fields)


def exact(value: Any) -> str:
    """Render a JSON value so that equal texts mean equal in type, bits and key order."""
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


HOSTILE_VALUES: dict[str, Any] = {
    "null": None,
    "booleans": [True, False],
    "one is not one point zero is not true": [1, 1.0, True],
    "zeros": [0, 0.0, -0.0, False],
    "floats": [0.1, 1e-320, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 1e16, 1e22],
    "integers of 64 bits and more": [2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**64), 10**400],
    "an integer of 5,001 digits": 10**5000,
    "a negative integer of 5,001 digits": -(10**5000) - 1,
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
"""JSON values that one database or another would change, by what is special about them."""

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
    "129 levels": (_nested(129), ".in[0].in"),
    "a container that holds itself": (_circular(), ".a[0].a"),
}
"""Values that are not JSON, and the path inside them that the error must name."""

BAD_IDENTIFIERS: tuple[Any, ...] = ("", "a\0b", "\ud800", "x" * 1025, "é" * 513, None, 7, b"run")
"""What is no identifier, and is refused."""

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
"""Identifiers that differ byte by byte although a collation may call some of them equal."""
