"""Results for the subjects to write: distinct JSON objects of one size."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

__all__ = ["HUNDRED_KILOBYTES", "KILOBYTE", "Json", "Values"]

Json = dict[str, Any]

KILOBYTE, HUNDRED_KILOBYTES = 1_000, 100_000


class Values:
    """An endless supply of distinct JSON objects.

    SQLite does not write a page that did not change, so repeated values would measure
    nothing. The parts are built beforehand, so that the measured loop only builds one small
    dict per value.
    """

    def __init__(self, size: int, *, distinct: int) -> None:
        self.size = size
        self._parts = [_value(size) for _ in range(distinct)]
        self._numbers = itertools.count(10**9)  # all of one length, to keep the size

    def next(self) -> Json:
        """Return a value that was not returned before."""
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
