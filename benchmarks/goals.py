"""The goals: bounds of ratios, each the median of the ratios within a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .claims import BATCHES
from .listing import LIMIT
from .memory import WAITING, WRITING
from .runner import COMMIT_TASKS, MAX_TASKS
from .servers import DATABASES
from .subject import Cell
from .subjects import OursPostgresql, OursSqliteFull, OursSqliteNormal
from .timing import ratio
from .values import Json

__all__ = ["Goal", "goals", "waiting_mib"]

FULL, NORMAL, POSTGRESQL = OursSqliteFull.name, OursSqliteNormal.name, OursPostgresql.name
OURS = {"SQLite": FULL, "PostgreSQL": POSTGRESQL}
RAW = {"SQLite": "raw sqlite3, FULL", "PostgreSQL": "raw asyncpg, one connection"}
MEMORY_MIB = 64


@dataclass
class Goal:
    """One goal; `measured` is None if a subject failed or was not measured."""

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


def goals(results: Json) -> list[Goal]:
    """Return all goals, with what was measured."""
    rates = {key: cell["rates"] for key, cell in results["cells"].items()}
    return [
        *_write_goals(rates),
        *_read_goals(results["reads"]),
        *_growth_goals(results["growth"]),
        *_spread_goals(results["cells"]),
        *_memory_goals(results),
        *_commit_goals(rates),
        *_listing_goals(results["listing"]),
        *_claims_goals(results["claims"]),
    ]


def _write_goals(rates: dict[str, list[float]]) -> list[Goal]:
    def faster(ours: str, tasks: int, theirs: str, their_tasks: int = 1) -> float | None:
        return ratio(rates.get(f"{ours} @ {tasks}"), rates.get(f"{theirs} @ {their_tasks}"))

    pgbench = [rounds for key, rounds in rates.items() if key.startswith("pgbench @ ")]
    best = [max(round_) for round_ in zip(*pgbench, strict=False)]
    found = [
        Goal("SQLite FULL, 1 task ÷ raw sqlite3", 0.60, faster(FULL, 1, RAW["SQLite"])),
        Goal("SQLite FULL, 64 tasks ÷ raw sqlite3", 5, faster(FULL, 64, RAW["SQLite"])),
        Goal("SQLite NORMAL, 64 tasks ÷ raw sqlite3 NORMAL", 1.6,
             faster(NORMAL, 64, "raw sqlite3, NORMAL")),
        Goal("PostgreSQL, 1 task ÷ raw asyncpg, one connection", 0.90,
             faster(POSTGRESQL, 1, RAW["PostgreSQL"])),
        Goal("PostgreSQL, 64 tasks ÷ raw asyncpg, pool of 10", 2.8,
             faster(POSTGRESQL, 64, "raw asyncpg, pool of 10", 64)),
        Goal("PostgreSQL, 64 tasks ÷ best of pgbench", 1.7,
             ratio(rates.get(f"{POSTGRESQL} @ 64"), best)),
    ]  # fmt: skip
    found += [
        Goal(f"{database}, {_tasks(tasks)} ÷ LangGraph aput_writes", bound,
             faster(OURS[database], tasks, f"LangGraph, {database}", tasks))
        for tasks, bound in ((64, 15.0), (1, 1.5))
        for database in DATABASES
    ]  # fmt: skip
    redis = faster(FULL, 64, "Redis, appendfsync always", 64)
    return [*found, Goal("SQLite FULL, 64 tasks ÷ Redis, appendfsync always", 1.7, redis)]


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count > 1)}"


def _read_goals(reads: Json) -> list[Goal]:
    def faster(ours: str, theirs: str, steps: int) -> float | None:
        ours_read, their_read = (reads.get(f"{name} | {steps}", {}) for name in (ours, theirs))
        return ratio(their_read.get("ms"), ours_read.get("ms"))

    return [
        *(Goal(f"{database}, resume of {steps:,} steps ÷ two SELECTs and json", 0.9,
               faster(OURS[database], RAW[database], steps))
          for steps in (100, 1_000) for database in DATABASES),
        *(Goal(f"{database}, resume of 1,000 steps ÷ LangGraph aget_tuple", 1.0,
               faster(OURS[database], f"LangGraph, {database}", 1_000))
          for database in DATABASES),
    ]  # fmt: skip


def _growth_goals(growth: Sequence[Json]) -> list[Goal]:
    found: list[Goal] = []
    for database in DATABASES:
        tables = [table for table in growth if table["database"] == database]
        if tables:
            small, large = tables[0], tables[-1]
            what = f"p50 of a write at {large['steps']:,} ÷ at {small['steps']:,} steps"
            measured = ratio(large["p50_ms"], small["p50_ms"])
            found.append(Goal(f"{database}, {what}", 1.2, measured, at_least=False))
    return found


def _spread_goals(cells: Json) -> list[Goal]:
    found: list[Goal] = []
    for name in OURS.values():
        cell = cells.get(f"{name} @ {MAX_TASKS}", {})
        measured = ratio(cell.get("p99_ms"), cell.get("p50_ms"))
        what = f"{name}: p99 ÷ p50 of a write at {MAX_TASKS} tasks"
        found.append(Goal(what, 5, measured, at_least=False))
    return found


def waiting_mib(results: Json, database: str) -> float:
    """Return the peak memory of waiting writes, beyond that of tasks that only wait."""
    over_idle: dict[tuple[str, str], float] = {
        (entry["database"], entry["mode"]): entry["over_idle_mib"] for entry in results["memory"]
    }
    return over_idle[database, WRITING] - over_idle[database, WAITING]


def _memory_goals(results: Json) -> list[Goal]:
    return [
        Goal(
            f"{entry['database']}, {entry['callers']:,} waiting writes: peak memory beyond that "
            "of their tasks",
            MEMORY_MIB,
            waiting_mib(results, entry["database"]),
            at_least=False,
            unit=" MiB",
        )
        for entry in results["memory"]
        if entry["mode"] == WRITING
    ]


def _commit_goals(rates: dict[str, list[float]]) -> list[Goal]:
    found: list[Goal] = []
    for name, label in ((FULL, "SQLite FULL"), (POSTGRESQL, "PostgreSQL")):
        for tasks in COMMIT_TASKS:
            plain = rates.get(Cell(name, tasks).key)
            what = f"{label}, {_tasks(tasks)}"
            if tasks == MAX_TASKS:
                commit = ratio(rates.get(Cell(name, tasks, "commit").key), plain)
                found.append(Goal(f"{what}: commit_step ÷ upsert_step", 0.6, commit))
            fenced = ratio(rates.get(Cell(name, tasks, "fenced").key), plain)
            found.append(Goal(f"{what}: upsert_step, fenced ÷ plain", 0.8, fenced))
    return found


def _listing_goals(listing: Sequence[Json]) -> list[Goal]:
    """Return the goals of the filters that slow down most with the size of the table."""
    by_size: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for entry in listing:
        key = (entry["database"], entry["page"], entry["filter"])
        by_size.setdefault(key, {})[entry["runs"]] = entry["p50_ms"]
    sizes = sorted({entry["runs"] for entry in listing})
    ratios: dict[tuple[str, str], dict[str, float]] = {}
    for (database, page, name), p50_ms in by_size.items():
        measured = ratio(p50_ms[sizes[-1]], p50_ms[sizes[0]])
        ratios.setdefault((database, page), {})[name] = measured or 0.0
    found: list[Goal] = []
    for (database, page), by_filter in ratios.items():
        worst = max(by_filter, key=lambda name: by_filter[name])
        what = (
            f"{database}, {page} page of {LIMIT} among {sizes[-1]:,} ÷ among {sizes[0]:,} runs, "
            f"worst filter ({worst})"
        )
        found.append(Goal(what, 5, by_filter[worst], at_least=False))
    return found


def _claims_goals(claims: Sequence[Json]) -> list[Goal]:
    return [
        Goal(
            f"{entry['database']}, {entry['claims']:,} claims renewed every "
            f"{entry['period_s']:g} s {entry['way']}: processor time of one core",
            10,
            median(entry["percent"]),
            at_least=False,
            unit=" %",
        )
        for entry in claims
        if entry["way"] == BATCHES
    ]
