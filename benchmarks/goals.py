"""The goals: each a ratio inside one round, and the median of it over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .claims import BURST, ClaimsResult
from .growth import GrowthResult
from .listing import LIMIT, ListingResult
from .reads import ReadResult
from .runner import COMMIT_TASKS, MAX_TASKS, CellResult
from .subject import Cell
from .values import Json

__all__ = ["Goal", "goals", "ratio"]

FULL = "workflow-store, SQLite FULL"
NORMAL = "workflow-store, SQLite NORMAL"
POSTGRESQL = "workflow-store, PostgreSQL"
MEMORY_MIB = 64


@dataclass
class Goal:
    """One line of the table; `measured` is None where a subject could not run."""

    what: str
    bound: float
    measured: float | None
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def ratio(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """Give the median of the ratios inside a round."""
    if not ours or not theirs:
        return None
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def goals(
    *,
    cells: dict[str, CellResult],
    reads: dict[str, ReadResult],
    growth: Sequence[GrowthResult],
    memory: Sequence[Json],
    listing: Sequence[ListingResult],
    claims: Sequence[ClaimsResult],
) -> list[Goal]:
    """Compute all goals of what was measured."""
    rates = {key: result.rates for key, result in cells.items()}

    def faster(ours: str, theirs: str) -> float | None:
        return ratio(rates.get(ours), rates.get(theirs))

    found = [
        Goal("SQLite FULL, 1 task ÷ raw sqlite3", 0.60,
             faster(f"{FULL} @ 1", "raw sqlite3, FULL @ 1")),
        Goal("SQLite FULL, 64 tasks ÷ raw sqlite3", 5,
             faster(f"{FULL} @ 64", "raw sqlite3, FULL @ 1")),
        Goal("SQLite NORMAL, 64 tasks ÷ raw sqlite3 NORMAL", 1.6,
             faster(f"{NORMAL} @ 64", "raw sqlite3, NORMAL @ 1")),
        Goal("PostgreSQL, 1 task ÷ raw asyncpg, one connection", 0.90,
             faster(f"{POSTGRESQL} @ 1", "raw asyncpg, one connection @ 1")),
        Goal("PostgreSQL, 64 tasks ÷ raw asyncpg, pool of 10", 2.8,
             faster(f"{POSTGRESQL} @ 64", "raw asyncpg, pool of 10 @ 64")),
        Goal("PostgreSQL, 64 tasks ÷ best of pgbench", 1.7,
             ratio(rates.get(f"{POSTGRESQL} @ 64"), _best(rates, "pgbench @ "))),
    ]  # fmt: skip
    for tasks, bound in ((64, 15.0), (1, 1.5)):
        found += [
            Goal(f"{database}, {tasks} task{'s' if tasks > 1 else ''} ÷ LangGraph aput_writes",
                 bound, faster(f"{ours} @ {tasks}", f"LangGraph, {database} @ {tasks}"))
            for database, ours in (("SQLite", FULL), ("PostgreSQL", POSTGRESQL))
        ]  # fmt: skip
    found.append(
        Goal("SQLite FULL, 64 tasks ÷ Redis, appendfsync always", 1.7,
             faster(f"{FULL} @ 64", "Redis, appendfsync always @ 64"))
    )  # fmt: skip
    found += _read_goals(reads)
    found += _growth_goals(growth)
    found += [
        Goal(f"{name}: p99 ÷ p50 of a write at 64 tasks", 5, _spread(cells.get(f"{name} @ 64")),
             at_least=False)
        for name in (FULL, POSTGRESQL)
    ]  # fmt: skip
    found += _memory_goals(memory)
    found += _commit_goals(rates)
    return found + _listing_goals(listing) + _claims_goals(claims)


def _best(rates: dict[str, list[float]], prefix: str) -> list[float] | None:
    candidates = [rounds for key, rounds in rates.items() if key.startswith(prefix)]
    return [max(rates) for rates in zip(*candidates, strict=False)] or None


def _spread(cell: CellResult | None) -> float | None:
    return ratio(cell.p99_ms, cell.p50_ms) if cell else None


def _read_goals(reads: dict[str, ReadResult]) -> list[Goal]:
    def faster(ours: str, theirs: str, steps: int) -> float | None:
        a, b = reads.get(f"{ours} | {steps}"), reads.get(f"{theirs} | {steps}")
        return ratio(b.ms, a.ms) if a and b else None

    pairs = (
        ("SQLite", FULL, "raw sqlite3, FULL"),
        ("PostgreSQL", POSTGRESQL, "raw asyncpg, one connection"),
    )
    found = [
        Goal(f"{database}, resume of {steps:,} steps ÷ two selects and json", 0.9,
             faster(ours, theirs, steps))
        for steps in (100, 1_000)
        for database, ours, theirs in pairs
    ]  # fmt: skip
    return found + [
        Goal(f"{database}, resume of 1,000 steps ÷ LangGraph aget_tuple", 1.0,
             faster(ours, f"LangGraph, {database}", 1_000))
        for database, ours, _ in pairs
    ]  # fmt: skip


def _growth_goals(growth: Sequence[GrowthResult]) -> list[Goal]:
    found: list[Goal] = []
    for database in ("SQLite", "PostgreSQL"):
        of_database = [result for result in growth if result.database == database]
        if len(of_database) > 1:
            small, large = of_database[0], of_database[-1]
            what = f"{database}, p50 of a write at {large.steps:,} ÷ at {small.steps:,} steps"
            found.append(Goal(what, 1.2, ratio(large.p50_ms, small.p50_ms), at_least=False))
    return found


def _memory_goals(memory: Sequence[Json]) -> list[Goal]:
    over_idle: Callable[[str, str], float] = lambda database, mode: next(  # noqa: E731
        entry["over_idle_mib"]
        for entry in memory
        if (entry["database"], entry["mode"]) == (database, mode)
    )
    return [
        Goal(
            f"{entry['database']}, {entry['callers']:,} waiting writes: peak memory over that "
            "of their callers",
            MEMORY_MIB,
            entry["over_idle_mib"] - over_idle(entry["database"], "callers alone"),
            at_least=False,
            unit=" MiB",
        )
        for entry in memory
        if entry["mode"] == "callers writing"
    ]


def _commit_goals(rates: dict[str, list[float]]) -> list[Goal]:
    found: list[Goal] = []
    for name, database in ((FULL, "SQLite FULL"), (POSTGRESQL, "PostgreSQL")):
        for tasks in COMMIT_TASKS:
            plain = rates.get(Cell(name, tasks).key)
            many = f"{database}, {tasks} task{'s' if tasks > 1 else ''}"
            if tasks == MAX_TASKS:
                commit = ratio(rates.get(Cell(name, tasks, "commit").key), plain)
                found.append(Goal(f"{many}: commit_step ÷ upsert_step", 0.6, commit))
            fenced = ratio(rates.get(Cell(name, tasks, "fenced").key), plain)
            found.append(Goal(f"{many}: upsert_step, fenced ÷ plain", 0.8, fenced))
    return found


def _listing_goals(listing: Sequence[ListingResult]) -> list[Goal]:
    """Give the filter with which each database suffers most from the size of the table."""
    pages: dict[str, dict[str, list[ListingResult]]] = {}
    for result in listing:
        of_page = pages.setdefault(f"{result.database}, {result.page} page of {LIMIT}", {})
        of_page.setdefault(result.filter, []).append(result)
    found: list[Goal] = []
    for page, by_filter in pages.items():
        small, *_, large = next(iter(by_filter.values()))
        ratios = {name: ratio(each[-1].p50_ms, each[0].p50_ms) for name, each in by_filter.items()}
        worst = max(ratios, key=lambda name: ratios[name] or 0)
        what = f"{page} among {large.runs:,} ÷ among {small.runs:,} runs, worst filter ({worst})"
        found.append(Goal(what, 5, ratios[worst], at_least=False))
    return found


def _claims_goals(claims: Sequence[ClaimsResult]) -> list[Goal]:
    return [
        Goal(
            f"{each.database}, {each.claims:,} claims renewed every {each.period_s:g} s, "
            f"{each.way}: of one core",
            10,
            median(each.percent),
            at_least=False,
            unit=" %",
        )
        for each in claims
        if each.way.startswith(f"{BURST} ")
    ]
