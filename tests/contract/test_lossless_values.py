"""Values of every kind come back as they went in, or are rejected."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.all_stores import AllStores, answer, exact
from support.strategies import EPOCH, bounded, json_objects, json_values, nested, run, texts
from workflow_store import (
    InvalidStateError,
    WorkflowExecutionState,
    WorkflowStepState,
)
from workflow_store.json_codec import MAX_DEPTH, decode, encode

pytestmark = pytest.mark.slow


@given(value=json_values)
@bounded(400)
def test_json_text_gives_the_very_value_back(value: Any) -> None:
    """`decode` is the exact inverse of `encode`, and the text suits every database."""
    text = encode(value, field="value")
    assert exact(decode(text)) == exact(value)
    text.encode()
    assert not re.search("[\0-\x1f]", text)
    assert encode(decode(text), field="value") == text


@given(definition=json_objects, given_input=json_values, context=json_values, result=json_values)
@bounded(60)
def test_json_values_come_back_from_every_store_as_they_went_in(
    all_stores: AllStores, definition: Any, given_input: Any, context: Any, result: Any
) -> None:
    state = run(definition=definition, input=given_input, context=result)
    step = WorkflowStepState(step_id="s", result=result)
    all_stores.returns(lambda store: store.create_run(state))
    assert answer(all_stores.returns(lambda store: store.get_run("r"))) == answer(state)
    all_stores.returns(lambda store: store.upsert_step("r", step))
    assert answer(all_stores.returns(lambda store: store.get_step("r", "s"))) == answer(step)
    assert answer(all_stores.returns(lambda store: store.list_steps("r"))) == answer([step])
    all_stores.outcomes(lambda store: store.update_context("r", context))
    for found in all_stores.outcomes(lambda store: store.get_run("r")).values():
        assert isinstance(found, WorkflowExecutionState)
        assert exact(found.context) == exact(context)
        assert exact(found.definition) == exact(definition)


@given(error=texts)
@bounded(30)
def test_error_texts_come_back_from_every_store_as_they_went_in(
    all_stores: AllStores, error: str
) -> None:
    step = WorkflowStepState(step_id="s", error=error)
    all_stores.returns(lambda store: store.create_run(run(created_at=EPOCH, updated_at=EPOCH)))
    all_stores.returns(lambda store: store.upsert_step("r", step))
    assert answer(all_stores.returns(lambda store: store.get_step("r", "s"))) == answer(step)


KEYS = ["k", "key_2", "a b", "", "1", "\n", "it's", "é", "class"]

FOREIGN: list[Any] = [
    float("nan"), float("inf"), -float("inf"), b"x", bytearray(b"x"), object(), set(), frozenset(),
    EPOCH, EPOCH.date(), timedelta(1), Decimal(1), 1j, range(3), iter([]), Ellipsis, int,
    {1: 1}, {None: 1}, {"k": 1, True: 1}, {("k",): 1}, {b"k": 1}, "\ud83d\ude00",
    {"\udbff\udfff": 1},
]  # fmt: skip


@st.composite
def with_something_foreign(draw: st.DrawFn) -> tuple[Any, str]:
    """Draw a value with one part that is not JSON, and the path to that part."""
    value = draw(st.sampled_from(FOREIGN))
    is_bad_key = isinstance(value, dict) and list(value) == ["\udbff\udfff"]
    path = "['\\udbff\\udfff']" if is_bad_key else ""
    for _ in range(draw(st.integers(0, 6))):
        before = draw(st.lists(json_values, max_size=3))
        after = draw(st.lists(json_values, max_size=2))
        if draw(st.booleans()):
            value = [*before, value, *after]
            path = f"[{len(before)}]{path}"
        else:
            key = draw(st.sampled_from(KEYS))
            others = [f"other {number}" for number in range(5)]
            value = {
                **dict(zip(others, before, strict=False)),
                key: value,
                **dict(zip(others[3:], after, strict=False)),
            }
            path = f".{key}{path}" if key.isidentifier() else f"[{key!a}]{path}"
    return value, path


@given(foreign=with_something_foreign())
@example(foreign=(EPOCH, ""))  # other fields of a state are times
@bounded(60)
def test_what_is_not_json_is_refused_with_its_place_and_nothing_is_written(
    all_stores: AllStores, foreign: tuple[Any, str]
) -> None:
    """The message names the field and the path inside it."""
    value, path = foreign
    kept = run("kept", created_at=EPOCH, updated_at=EPOCH)
    kept_step = WorkflowStepState(step_id="s", result=1)
    all_stores.returns(lambda store: store.create_run(kept))
    all_stores.returns(lambda store: store.upsert_step("kept", kept_step))
    for field, place, call in (
        ("input", path, lambda store: store.create_run(run("new", input=value))),
        ("context", path, lambda store: store.create_run(run("kept", context=value))),
        (
            "definition",
            f".k{path}",
            lambda store: store.create_run(run("kept", definition={"k": value})),
        ),
        ("context", path, lambda store: store.update_context("kept", value)),
        ("context", path, lambda store: store.update_context("new", value)),
        (
            "result",
            path,
            lambda store: store.upsert_step("kept", WorkflowStepState(step_id="s", result=value)),
        ),
        (
            "result",
            path,
            lambda store: store.upsert_step("kept", WorkflowStepState(step_id="new", result=value)),
        ),
    ):
        message = all_stores.raises(call, InvalidStateError)
        assert message.startswith(f"{field}{place}: ")
    assert all_stores.returns(lambda store: store.get_run("new")) is None
    assert answer(all_stores.returns(lambda store: store.get_run("kept"))) == answer(kept)
    assert answer(all_stores.returns(lambda store: store.list_steps("kept"))) == answer([kept_step])


@given(kinds=st.lists(st.booleans(), min_size=MAX_DEPTH, max_size=MAX_DEPTH))
@bounded(8)
def test_nesting_is_taken_up_to_the_bound_and_read_back_and_refused_beyond_it(
    all_stores: AllStores, kinds: list[bool]
) -> None:
    """128 levels of arrays and objects in any mixture; `[]` is one level."""
    value, too_deep = nested(kinds), [nested(kinds)]
    definition = nested([*kinds[:-1], False])
    state = run(definition=definition, input=value, context=value)
    step = WorkflowStepState(step_id="s", result=value)
    all_stores.returns(lambda store: store.create_run(state))
    all_stores.returns(lambda store: store.upsert_step("r", step))
    assert answer(all_stores.returns(lambda store: store.get_run("r"))) == answer(state)
    assert answer(all_stores.returns(lambda store: store.list_steps("r"))) == answer([step])
    for field, call in {
        "definition": lambda store: store.create_run(run("new", definition={"k": value})),
        "input": lambda store: store.create_run(run("new", input=too_deep)),
        "context": lambda store: store.update_context("r", too_deep),
        "result": lambda store: store.upsert_step(
            "r", WorkflowStepState(step_id="new", result=too_deep)
        ),
    }.items():
        message = all_stores.raises(call, InvalidStateError)
        assert message.startswith(field)
        assert "128" in message
    assert all_stores.returns(lambda store: store.get_run("new")) is None
    assert answer(all_stores.returns(lambda store: store.list_steps("r"))) == answer([step])
