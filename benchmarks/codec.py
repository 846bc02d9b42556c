"""The JSON codec beside the standard library and bare orjson, which is not lossless."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from workflow_store import json_codec

from .timing import turns
from .values import Values

__all__ = ["CodecResult", "measure_codec"]


@dataclass
class CodecResult:
    """Microseconds per value of one size, with an entry per round."""

    what: str
    size: int
    us: list[float] = field(default_factory=list)


def measure_codec(sizes: tuple[int, ...], *, rounds: int, seconds: float) -> list[CodecResult]:
    """Encode values to text and decode them."""
    calls: list[tuple[CodecResult, Callable[[Any], object], list[Any]]] = []
    encode = partial(json_codec.encode_stored, field="result")
    for size in sizes:
        supply = Values(size, distinct=16)
        values = [supply.next() for _ in range(16)]
        texts = [json.dumps(value) for value in values]
        calls += [
            (CodecResult("encode, workflow_store", size), encode, values),
            (CodecResult("encode, json", size), json.dumps, values),
            (CodecResult("encode, bare orjson", size), _encode_orjson, values),
            (CodecResult("decode, workflow_store", size), json_codec.decode_stored, texts),
            (CodecResult("decode, json", size), json.loads, texts),
            (CodecResult("decode, bare orjson", size), orjson.loads, texts),
        ]
    for round_, (result, call, inputs) in turns(calls, rounds):
        us = _microseconds(call, inputs, seconds)
        if round_:
            result.us.append(us)
    return [result for result, _, _ in calls]


def _encode_orjson(value: Any) -> str:
    return orjson.dumps(value).decode()


def _microseconds(call: Callable[[Any], object], inputs: list[Any], seconds: float) -> float:
    count = 0
    begin = time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        for value in inputs:
            call(value)
        count += len(inputs)
    return elapsed / count * 1e6
