"""Durations, sizes and counts in text."""

from __future__ import annotations

import pytest

from workflow_store.formatting import coarse_duration, counted, duration, size


@pytest.mark.parametrize(
    ("seconds", "text", "brief"),
    [
        (0, "0 s", "0 s"),
        (0.0012, "1.20 ms", "1 ms"),
        (0.2, "200 ms", "200 ms"),
        (0.9996, "1.0 s", "1 s"),
        (59.94, "59.9 s", "60 s"),
        (59.96, "1 min 00 s", "1 min"),
        (185, "3 min 05 s", "3 min 05 s"),
        (3_599.9, "1 h 00 min", "1 h"),
        (187_200, "2 d 4 h", "2 d 4 h"),
        (-300, "-5 min 00 s", "-5 min"),
    ],
)
def test_a_duration_has_one_or_two_units(seconds: float, text: str, brief: str) -> None:
    assert duration(seconds) == text
    assert duration(seconds, brief=True) == brief


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (41.9, "41 s"),
        (119, "1 min"),
        (7_199, "1 h"),
        (777_600, "9 d"),
        (-90, "-1 min"),
    ],
)
def test_a_coarse_duration_is_rounded_down_to_one_unit(seconds: float, text: str) -> None:
    assert coarse_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1_023, "1023 bytes"),
        (1_536, "1.5 KiB"),
        (2**26, "64 MiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_a_size_has_the_largest_binary_unit(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "limit", "text"),
    [
        (0, None, "0 runs"),
        (1, None, "1 run"),
        (1_200, None, "1,200 runs"),
        (1, 1, "1 run"),
        (2, 1, "over 1 run"),
        (10_001, 10_000, "over 10,000 runs"),
    ],
)
def test_a_count_has_a_noun_in_the_plural_except_after_one(
    count: int, limit: int | None, text: str
) -> None:
    assert counted(count, "run", limit) == text
