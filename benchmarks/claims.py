"""What it costs to hold very many claims: the processor time of renewing them all."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import psutil

from workflow_store import ResumableWorkflowStore, RunClaim, open_store

from .runner import say
from .servers import Servers
from .subjects.raw import POSTGRESQL_RUN, SQLITE_RUN

__all__ = ["BURST", "ClaimsResult", "measure_claims"]

BURST = 100
OWNER, LEASE_S = "benchmark", 30.0

_Renewals = Callable[[ResumableWorkflowStore, Sequence[RunClaim], float], Awaitable[None]]
_Row = tuple[str, int, datetime]


@dataclass
class ClaimsResult:
    """Renewing each claim once a period; the lists have an entry per period.

    Attributes:
        database: which one.
        way: how the renewals are spread over the period.
        claims: how many are held.
        period_s: how often each is renewed.
        percent: processor time of this process, of one core.
        server_percent: of the database's server, where there is one.
        took_s: until the last one was renewed.
    """

    database: str
    way: str
    claims: int
    period_s: float
    percent: list[float] = field(default_factory=list)
    server_percent: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)


async def measure_claims(
    servers: Servers, count: int, period_s: float, *, periods: int
) -> list[ClaimsResult]:
    """Hold so many claims, and renew each of them once a period."""
    results: list[ClaimsResult] = []
    file = await servers.sqlite_file("claims", our_tables=True)
    url = await servers.postgres_database("claims", our_tables=True)
    server = await _server(url)
    for database, address, claims in (
        ("SQLite", f"sqlite:///{file}", _fill_sqlite(file, count)),
        ("PostgreSQL", url, await _fill_postgresql(url, count)),
    ):
        async with open_store(address) as store:
            await _in_bursts(store, claims[:BURST], 0.0)  # warms up
            for way, renewals in (
                (f"{BURST} at once", _in_bursts),
                ("each by a task of its own", _one_by_one),
            ):
                result = ClaimsResult(database, way, count, period_s)
                watched = server if database == "PostgreSQL" else None
                for _ in range(periods):
                    await _period(result, store, claims, renewals, watched)
                results.append(result)
        say(f"{count:,} claims were renewed, {database}")
    return results


async def _period(
    result: ClaimsResult,
    store: ResumableWorkflowStore,
    claims: Sequence[RunClaim],
    renewals: _Renewals,
    server: psutil.Process | None,
) -> None:
    gc.collect()
    server_before = _cpu_s(server) if server else 0.0
    before, begun = time.process_time(), time.perf_counter()
    await renewals(store, claims, result.period_s)
    result.took_s.append(time.perf_counter() - begun)
    result.percent.append((time.process_time() - before) / result.period_s * 100)
    if server:
        result.server_percent.append((_cpu_s(server) - server_before) / result.period_s * 100)


async def _in_bursts(
    store: ResumableWorkflowStore, claims: Sequence[RunClaim], period_s: float
) -> None:
    begun = time.perf_counter()
    for start in range(0, len(claims), BURST):
        due = begun + period_s * start / len(claims)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await asyncio.gather(*(store.renew_claim(claim) for claim in claims[start : start + BURST]))


async def _one_by_one(
    store: ResumableWorkflowStore, claims: Sequence[RunClaim], period_s: float
) -> None:
    """Renew as a runtime does whose runs each have a heartbeat of their own."""
    begun = time.perf_counter()

    async def renew(number: int, claim: RunClaim) -> None:
        due = begun + period_s * number / len(claims)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await store.renew_claim(claim)

    await asyncio.gather(*(renew(number, claim) for number, claim in enumerate(claims)))


async def _server(url: str) -> psutil.Process | None:
    connection = await asyncpg.connect(url)
    try:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        return psutil.Process(backend).parent()
    finally:
        await connection.close()


def _cpu_s(server: psutil.Process) -> float:
    """Give the processor time of a server, of its processes, and of those that have ended."""
    own = server.cpu_times()
    total: float = own.user + own.system + own.children_user + own.children_system
    for child in server.children():
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _run_ids(count: int) -> Iterable[str]:
    return (f"run-{number:09d}" for number in range(count))


def _claims(rows: Iterable[_Row]) -> list[RunClaim]:
    return [RunClaim(run, OWNER, token, LEASE_S, expires_at) for run, token, expires_at in rows]


def _fill_sqlite(file: Path, count: int) -> list[RunClaim]:
    now = datetime.now(UTC).replace(microsecond=0)
    expires_at = now + timedelta(seconds=LEASE_S)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN")
    connection.executemany(SQLITE_RUN, ((run, _text(now)) for run in _run_ids(count)))
    connection.executemany(
        "INSERT INTO claims (run_task_id, owner, expires_at) VALUES (?, ?, ?)",
        ((run, OWNER, _text(expires_at)) for run in _run_ids(count)),
    )
    connection.execute("COMMIT")
    rows = connection.execute("SELECT run_task_id, token FROM claims ORDER BY token").fetchall()
    connection.close()
    return _claims((run, token, expires_at) for run, token in rows)


def _text(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(" ", "microseconds")


async def _fill_postgresql(url: str, count: int) -> list[RunClaim]:
    now = datetime.now(UTC)
    connection = await asyncpg.connect(url)
    try:
        await connection.executemany(POSTGRESQL_RUN, [(run, now) for run in _run_ids(count)])
        rows = await connection.fetch(
            "INSERT INTO claims (run_task_id, owner, expires_at) SELECT run_task_id, $1::text, "
            "now() + make_interval(secs => $2) FROM runs ORDER BY run_task_id "
            "RETURNING run_task_id, token, expires_at",
            OWNER, LEASE_S,
        )  # fmt: skip
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return _claims(tuple(row) for row in rows)
