"""JSON text and back, without loss."""

from __future__ import annotations

import enum
import json
import math
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from workflow_store import InvalidStateError, TaskStatus
from workflow_store.json_codec import MAX_DEPTH, decode, decode_stored, encode, encode_stored
from workflow_store.testing.samples import FOREIGN_VALUES, HOSTILE_VALUES, a_step


@pytest.fixture(params=[0, 640, 4300])
def digits_of_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """A limit of the process: none, the lowest, and the default."""
    sys.set_int_max_str_digits(request.param)
    yield
    sys.set_int_max_str_digits(4300)


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_a_value_survives_the_way_to_text_and_back(name: str) -> None:
    """Equal in type, bits and key order, for which `repr` is the witness."""
    value = HOSTILE_VALUES[name]
    assert repr(decode(encode(value, field="value"))) == repr(value)
    assert repr(decode_stored(encode_stored(value, field="value"))) == repr(value)


@pytest.mark.usefixtures("digits_of_process")
def test_the_bound_of_integers_is_not_that_of_the_process() -> None:
    """4,300 digits are written and read, one more is refused both ways."""
    for longest in (10**4300 - 1, 1 - 10**4300):
        text = encode([longest], field="value")
        assert decode(text) == decode_stored(" " + text) == [longest]
    too_long = "1" + "0" * 4300
    for value in (10**4300, -(10**4300)):
        with pytest.raises(InvalidStateError, match=r"^value\[0\]: .*4,300 digits"):
            encode([value], field="value")
    for text in (f"[{too_long}]", f" [-{too_long}]"):
        for read in (decode, decode_stored):
            with pytest.raises(ValueError, match="4,300 digits"):
                read(text)


def test_an_integer_of_a_megabyte_takes_no_time() -> None:
    """Converting it would take half a minute, without a chance for any other task."""
    begun = time.process_time()
    with pytest.raises(InvalidStateError, match="4,300 digits"):
        encode({"n": 1 << 8_000_000}, field="value")
    with pytest.raises(ValueError, match="4,300 digits"):
        decode("7" * 2_500_000)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_the_text_is_json_that_every_database_takes(name: str) -> None:
    """No surrogate, no control character, and another reader understands it."""
    text = encode(HOSTILE_VALUES[name], field="value")
    text.encode()
    assert min(text) >= " "
    json.loads(text)


@pytest.mark.parametrize("name", FOREIGN_VALUES)
def test_what_is_not_json_is_refused_with_its_path(name: str) -> None:
    """The message names the field and the path of the value."""
    value, path = FOREIGN_VALUES[name]
    with pytest.raises(InvalidStateError) as caught:
        encode(value, field="context")
    assert f"context{path}" in str(caught.value)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (uuid.uuid4(), "UUID is not a JSON type; convert it with str(...)"),
        (Decimal("1.5"), "Decimal is not a JSON type; convert it with str(...)"),
        (datetime.now(UTC), "datetime is not a JSON type; convert it with .isoformat()"),
        (date(2026, 1, 31), "date is not a JSON type; convert it with .isoformat()"),
        (a_step(), "WorkflowStepState is not a JSON type; convert it with "
         '.model_dump(mode="json")'),
        ({"b", "a"}, "set is not a JSON type; convert it with sorted(...)"),
        (b"S3CR3T", "bytes is not a JSON type; convert it with base64.b64encode(...).decode()"),
        (Colour.RED, "Colour is not a JSON type; convert it with .value"),
        (1j, "complex is not a JSON type; use dict, list, str, int, float, bool or None"),
        ({1: 2}, "keys must be strings, not int"),
        (math.nan, "NaN and infinity are not valid JSON; use None or a string"),
        ("\ud83d\ude00", "a high surrogate is followed by a low surrogate: JSON cannot "
         "distinguish this pair from the single character it encodes; use that character instead"),
    ],
)  # fmt: skip
def test_an_error_says_how_to_convert_the_value(value: Any, message: str) -> None:
    """The common types have a conversion of their own."""
    with pytest.raises(InvalidStateError) as caught:
        encode([value], field="context")
    assert str(caught.value) == f"context[0]: {message}"


def test_a_path_is_shortened_and_escaped() -> None:
    """Keys that are long, odd or many do not flood a log, nor write a new line into it."""
    value: Any = math.nan
    for _ in range(50):
        value = {"k" * 1000: value}
    with pytest.raises(InvalidStateError) as caught:
        encode({"a\nb": value}, field="input")
    message = str(caught.value)
    assert message.startswith("input['a\\nb']['kkk")
    assert len(message) < 400
    assert "\n" not in message


def test_a_container_may_stand_in_two_places() -> None:
    """Only a container inside itself is a circle."""
    shared = [1]
    assert decode(encode([shared, shared, {"a": shared}], field="v")) == [[1], [1], {"a": [1]}]


def test_exactly_128_levels_are_taken() -> None:
    """The 129th is refused, in arrays and in objects."""
    for wrap in (lambda value: [value], lambda value: {"a": value}, lambda value: (value,)):
        value: Any = 0
        for _ in range(MAX_DEPTH):
            value = wrap(value)
        assert encode(value, field="v")
        with pytest.raises(InvalidStateError, match="128 levels"):
            encode(wrap(value), field="v")


def test_levels_beyond_every_limit_are_refused_and_end_no_process() -> None:
    """Whatever they are made of, and however many."""
    for wrap in (lambda value: [value], lambda value: {"a": value}, lambda value: (value,)):
        value: Any = 0
        for _ in range(100_000):
            value = wrap(value)
        with pytest.raises(InvalidStateError, match="128 levels"):
            encode(value, field="v")


def test_many_brackets_are_not_many_levels() -> None:
    """Neither side by side nor inside strings."""
    value = {"lists": [[[]]] * 1000, "text": "[{" * 1000, "tuples": ((),) * 1000}
    assert decode(encode(value, field="v")) == json.loads(json.dumps(value))


def test_subclasses_are_written_as_what_they_extend() -> None:
    """An enum of strings, a named tuple, an ordered dict."""

    class Number(enum.IntEnum):
        SEVEN = 7

    class Point(NamedTuple):
        x: int
        y: float

    class Real(float):
        def __repr__(self) -> str:
            return "real"

    value = OrderedDict(
        {TaskStatus.FAILED: [TaskStatus.PENDING, Number.SEVEN, Point(1, 2.0), Real(0.5)]}
    )
    assert encode(value, field="v") == '{"failed":["pending",7,[1,2.0],0.5]}'


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1,]", "nul", "NaN", "[Infinity]", "-Infinity", "1e999", "[-1e999]",
        '{"a":1,"a":2}', "'a'", '"\n"', "[" * 100_000, "01", "1 2",
    ],
)  # fmt: skip
def test_what_cannot_be_read_exactly_is_a_value_error(text: str) -> None:
    """Another program's text is refused rather than read with a loss."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the type is the promise
        decode(text)
    assert not isinstance(caught.value, json.JSONDecodeError)  # which would carry the text


def test_text_of_other_writers_is_read() -> None:
    """White space, escapes, exponents, and a pair of escaped surrogates."""
    assert decode(' {"a" : [1E2, "\\u00e9\\ud83d\\ude00\\/", -0] } ') == {"a": [100.0, "é😀/", 0]}
