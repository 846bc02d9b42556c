"""What an examination of a database finds, in words that the databases have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from .options import EngineOptions

__all__ = ["Check", "Finding", "Subject", "Told", "Verdict", "bad", "duration", "good", "size",
           "warning"]  # fmt: skip


class Verdict(StrEnum):
    """What a finding means: all is well, look into it, or something does not work."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: its name, which stays the same from version to version.
        verdict: what it means.
        found: what is there, for a person to read.
        advice: what to do about it; empty where it is good.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str


class Told(NamedTuple):
    """A finding that has no name yet."""

    verdict: Verdict
    found: str
    advice: str = ""


class Subject(NamedTuple):
    """What is examined.

    Attributes:
        tables: those of ours that are there, in their schema.
        version_table: the table of the revision.
        schema: the schema that was asked for, if any.
        options: how a store would be opened.
    """

    tables: Sequence[Table]
    version_table: str
    schema: str | None
    options: EngineOptions


Check: TypeAlias = Callable[[AsyncConnection, Subject], Awaitable[Told | None]]
"""Looks at one thing; gives None where the thing is not there to be looked at."""


def good(found: str) -> Told:
    return Told(Verdict.GOOD, found)


def warning(found: str, advice: str) -> Told:
    return Told(Verdict.WARNING, found, advice)


def bad(found: str, advice: str) -> Told:
    return Told(Verdict.BAD, found, advice)


def size(count: float) -> str:
    """Render a number of bytes."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Render a length of time, to one unit."""
    for unit, length_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.3g} seconds"
