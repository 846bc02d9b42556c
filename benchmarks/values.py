"""The results that every subject writes: JSON objects of one size, no two alike."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

__all__ = ["KILOBYTE", "Json", "Values"]

Json = dict[str, Any]

KILOBYTE = 1_000


class Values:
    """An endless supply of distinct JSON objects.

    SQLite skips a page that does not change, so a write of what is there already would
    measure nothing. The parts are made beforehand, so that making a value costs the
    measured loop one small dict.
    """

    def __init__(self, size: int, *, distinct: int) -> None:
        self.size = size
        self._parts = [_value(size) for _ in range(distinct)]
        self._numbers = itertools.count(10**9)  # of one length, so that the size stays

    def next(self) -> Json:
        """Give a value that was not given before."""
        number = next(self._numbers)
        return {"number": number, **self._parts[number % len(self._parts)]}


def _value(size: int) -> Json:
    value: Json = {"ok": True, "summary": "", "items": []}
    missing = size - len(json.dumps({"number": 10**9, **value}))
    while missing > 250:
        value["items"].append(_item())
        missing -= len(json.dumps(value["items"][-1])) + 2
    value["summary"] = os.urandom(missing // 2 + 1).hex()[:missing]
    return value


def _item() -> Json:
    noise = os.urandom(36)
    return {
        "id": noise[:6].hex(),
        "score": int.from_bytes(noise[6:12]) / 2**48,
        "pages": [noise[12], noise[13] * 256 + noise[14]],
        "text": noise[15:].hex(),
        "note": None,
    }
