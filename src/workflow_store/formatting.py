"""Durations, sizes and counts, for people."""

from __future__ import annotations

__all__ = ["coarse_duration", "counted", "duration", "size"]

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def duration(seconds: float, *, brief: bool = False) -> str:
    """Return a duration in one or two units: `1.2 s`, `3 min 05 s`, `2 d 4 h`.

    Args:
        seconds: the duration; a negative one is written with a minus.
        brief: omit decimals and a second unit of zero: `2 s`, `3 min`, `2 d`.
    """
    if seconds < 0:
        return f"-{duration(-seconds, brief=brief)}"
    if not seconds:
        return "0 s"
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.{0 if brief or milliseconds >= 9.995 else 2}f} ms"
    if seconds < 59.95:
        return f"{seconds:.{0 if brief else 1}f} s"
    large, small, width = "min", "s", 2
    count, rest = divmod(round(seconds), 60)
    if count >= 60:
        large, small = "h", "min"
        count, rest = divmod(round(seconds / _MINUTE), 60)
    if large == "h" and count >= 24:
        large, small, width = "d", "h", 1
        count, rest = divmod(round(seconds / _HOUR), 24)
    return f"{count} {large}" if brief and not rest else f"{count} {large} {rest:0{width}} {small}"


def coarse_duration(seconds: float) -> str:
    """Return a duration in its largest unit, rounded down: `41 s`, `3 min`, `2 d`."""
    if seconds < 0:
        return f"-{coarse_duration(-seconds)}"
    for unit_s, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{int(seconds)} s"


def counted(count: int, noun: str, limit: int | None = None) -> str:
    """Return a count and its noun: `1 run`, `1,200 runs`; above the limit `over 10,000 runs`."""
    if limit is not None and count > limit:
        return f"over {counted(limit, noun)}"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Return a number of bytes in its largest binary unit: `812 bytes`, `64 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
