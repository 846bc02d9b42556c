"""Findings, and the context that the checks share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import ClauseElement
from sqlalchemy.ext.asyncio import AsyncConnection

from ..dialects import EngineOptions, StoreDialect

if TYPE_CHECKING:
    from .schema import SchemaDifferences

__all__ = ["Check", "Examination", "Finding", "Verdict", "as_sql", "bad", "good", "warning"]


class Verdict(StrEnum):
    """Whether all is well, something deserves a look, or something does not work."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        check: the name of the check, which stays the same from version to version.
        verdict: the meaning of the result.
        found: the observation, for people.
        advice: the remedy; empty if the verdict is good.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str


def good(found: str) -> Finding:
    return Finding("", Verdict.GOOD, found, "")


def warning(found: str, advice: str) -> Finding:
    return Finding("", Verdict.WARNING, found, advice)


def bad(found: str, advice: str) -> Finding:
    return Finding("", Verdict.BAD, found, advice)


@dataclass
class Examination:
    """A database under examination, and the data that its checks share.

    Attributes:
        connection: the connection, which finds the models' tables in the examined schema.
        dialect: the kind of database.
        schema: the PostgreSQL schema that was asked for, if any.
        options: the options with which stores are opened.
        running_for_s: the seconds after which a step in `running` may be abandoned.
        round_trip_s: the duration of the fastest of several round trips.
        clock_ahead_s: how far the database's clock is ahead of this machine's.
        tables: the names of the store's existing tables.
        revision: the revision of the tables, once `revision` has read it.
        differences: the differences from the models, once `tables` has compared them.
    """

    connection: AsyncConnection
    dialect: StoreDialect
    schema: str | None
    options: EngineOptions
    running_for_s: float
    round_trip_s: float = 0.0
    clock_ahead_s: float = 0.0
    tables: Sequence[str] = ()
    revision: str | None = None
    differences: SchemaDifferences | None = None


Check: TypeAlias = Callable[[Examination], Awaitable[Finding | None]]
"""Runs one check; None if it does not apply. `examine` names the finding after the function."""


def as_sql(examination: Examination, statement: ClauseElement) -> str:
    """Return a statement as one line of SQL, for people to run."""
    schema: dict[str, Any] = {}
    if examination.schema is not None:
        names = {None: examination.schema}
        schema = {"schema_translate_map": names, "render_schema_translate": True}
    sql = statement.compile(dialect=examination.connection.dialect, **schema)
    return f"{sql};".replace(" \n", " ").replace("\n", " ").strip()
