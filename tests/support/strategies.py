"""Hypothesis strategies: hostile values, states and bad arguments."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from workflow_store import (
    TaskStatus,
    WorkflowExecutionState,
    WorkflowStepState,
)
from workflow_store.json_codec import MAX_DEPTH


def bounded(examples: int, **more: Any) -> settings:
    """Return settings without limits of time, which a slow machine exceeds."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
        **more,
    )


PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def without_pairs(text: str) -> str:
    """Remove surrogate pairs, which JSON cannot keep, until none is left."""
    while PAIR.search(text):
        text = PAIR.sub("", text)
    return text


HOSTILE_TEXTS = [
    "", "\0", "\ud800", "\udc00", "\udfff\ud800", "\U0001f600", "e\u0301", "é", "\u2028", "\x7f",
    "\\u0000", "\\", '"', "'", "%s", ":name", "?", "$1", "{}", "null", "1.0", "\ufeff", "a" * 300,
]  # fmt: skip

texts = (
    st.text(st.characters(exclude_categories=()), max_size=20).map(without_pairs)
    | st.lists(st.sampled_from("\ud800\udbff\udc00\udfff\0a\\"), max_size=8)
    .map("".join)
    .map(without_pairs)
    | st.sampled_from(HOSTILE_TEXTS)
)

integers = (
    st.integers()
    | st.builds(
        lambda digits, less, sign: sign * (10**digits - less),
        st.integers(0, 4300),
        st.integers(1, 3),
        st.sampled_from([1, -1]),
    )
    | st.sampled_from([640, 4298, 4299]).map(lambda digits: 10**digits)
    | st.sampled_from([2**53 + 1, 2**63, -(2**63) - 1, 2**64])
)

floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 0.0, 1.0, 1e16, 1e22, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, 1e-7, 2.0**53]
)

scalars = st.none() | st.booleans() | integers | floats | texts

json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)

json_objects = st.dictionaries(texts, json_values, max_size=3)

offsets = st.timedeltas(
    timedelta(hours=-24, microseconds=1), timedelta(hours=24, microseconds=-1)
) | st.sampled_from([timedelta(0), timedelta(hours=5, minutes=45), timedelta(hours=-12)])

moments = (
    st.datetimes()
    | st.datetimes(max_value=datetime(1, 1, 3))  # noqa: DTZ001 - the offset is drawn apart
    | st.datetimes(min_value=datetime(9999, 12, 29))  # noqa: DTZ001
)

times = st.builds(lambda moment, offset: moment.replace(tzinfo=timezone(offset)), moments, offsets)


def in_utc(time: datetime) -> datetime | None:
    """Return the time in UTC, None if UTC cannot represent it."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return None


utc_times = times.map(in_utc).filter(lambda time: time is not None)

plain_identifier_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def of_size(text: str, size: int) -> str:
    """Cut or extend a text to a size in bytes."""
    kept = text.encode()[:size].decode(errors="ignore")
    return kept + "x" * (size - len(kept.encode()))


def identifiers_of(size: int) -> st.SearchStrategy[str]:
    return st.text(plain_identifier_characters, min_size=1, max_size=size).map(
        lambda text: of_size(text, size)
    )


identifiers = st.text(plain_identifier_characters, min_size=1, max_size=30)


def run(run_task_id: str = "r", **fields: Any) -> WorkflowExecutionState:
    required = {"agent_id": "a", "thread_id": "t", "user_id": "u", "definition": {}}
    return WorkflowExecutionState(run_task_id=run_task_id, **{**required, **fields})


def nested(kinds: list[bool]) -> Any:
    """Return containers inside of each other: an array for each true kind, else an object."""
    value: Any = None
    for number, is_array in enumerate(kinds):
        inner = [] if number == 0 else [value]
        value = inner if is_array else dict.fromkeys("k" * len(inner), value)
    return value


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


RUN_IDS = ["r", "R", "r ", "e\u0301", "é", "'; DROP TABLE runs; --", "\U0001f600" * 256]
STEP_IDS = ["s", "S", "%s", "\x01", ":of_run", "\ufffd", "\U0001f600" * 256]
BAD_IDS: list[Any] = ["", "\0", "a\0b", "\ud800", "x" * 1025, "é" * 513, None, 5, b"r", ["r"]]
BAD_VALUES: list[Any] = [
    float("nan"), [float("inf")], {"k": -float("inf")}, {1: 2}, {"k": [{None: 1}]}, b"bytes",
    {"k": {1, 2}}, [datetime(2026, 1, 1, tzinfo=UTC)], object, "\ud83d\ude00", {"\ud83d\ude00": 1},
    1j, Decimal(1), EPOCH, nested([True] * (MAX_DEPTH + 1)),
]  # fmt: skip


# Few enough to be met again by a filter, and by another run or step.
NAMES = ["a", "A", "a ", "é", "%"]
AGES = [EPOCH, EPOCH + timedelta(microseconds=1), EPOCH.replace(year=2026)]

run_ids = st.sampled_from(RUN_IDS)
step_ids = st.sampled_from(STEP_IDS)
bad_ids = st.sampled_from(BAD_IDS)
names = st.sampled_from(NAMES) | identifiers
ages = st.sampled_from(AGES) | utc_times
bad_values = st.sampled_from(BAD_VALUES)

steps = st.builds(
    WorkflowStepState,
    step_id=step_ids,
    status=st.sampled_from(TaskStatus),
    result=json_values,
    error=st.none() | texts,
    started_at=st.none() | utc_times,
    completed_at=st.none() | utc_times,
    wait_task_id=st.none() | names,
)

runs = st.builds(
    WorkflowExecutionState,
    run_task_id=run_ids,
    agent_id=names,
    thread_id=names,
    user_id=names,
    workspace_id=st.none() | names,
    entry_point=st.none() | identifiers,
    definition=json_objects,
    input=json_values,
    context=json_values,
    created_at=ages,
    updated_at=utc_times,
)


LONG_S = 3_600.0
SHORT_S = 0.02
"""A lease that expires during the test. Nothing is assumed of it until it certainly has."""

leases = st.sampled_from([SHORT_S, LONG_S])
fences = st.none() | st.integers(0, 5)
