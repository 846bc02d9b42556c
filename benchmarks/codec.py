"""The codec beside the standard library and beside bare orjson, which is not lossless."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from workflow_store import json_codec

from .values import Values

__all__ = ["CodecResult", "measure_codec"]


@dataclass
class CodecResult:
    """Microseconds for one value of a size, one entry per round."""

    what: str
    size: int
    us: list[float] = field(default_factory=list)


def measure_codec(sizes: tuple[int, ...], *, rounds: int, seconds: float) -> list[CodecResult]:
    """Encode to text and decode from it, in turns."""
    results: list[CodecResult] = []
    calls: list[tuple[CodecResult, Callable[[Any], Any], list[Any]]] = []
    for size in sizes:
        supply = Values(size, distinct=16)
        values = [supply.next() for _ in range(16)]
        texts = [json.dumps(value) for value in values]
        for what, call, given in (
            ("encode, workflow_store", _encode, values),
            ("encode, json", json.dumps, values),
            ("encode, bare orjson", lambda value: orjson.dumps(value).decode(), values),
            ("decode, workflow_store", json_codec.decode_stored, texts),
            ("decode, json", json.loads, texts),
            ("decode, bare orjson", orjson.loads, texts),
        ):
            results.append(CodecResult(what, size))
            calls.append((results[-1], call, given))
    for round_ in range(rounds):
        shift = round_ * len(calls) // rounds
        for result, call, given in calls[shift:] + calls[:shift]:
            result.us.append(_us(call, given, seconds))
    return results


def _encode(value: Any) -> str:
    return json_codec.encode_stored(value, field="result")


def _us(call: Callable[[Any], Any], given: list[Any], seconds: float) -> float:
    done = 0
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        for value in given:
            call(value)
        done += len(given)
    return elapsed / done * 1e6
