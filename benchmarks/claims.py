"""Holding very many claims: the processor time of renewing them all."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import psutil

from workflow_store import ResumableWorkflowStore, RunClaim, WorkflowExecutionState, open_store

from .servers import DATABASES, Servers
from .timing import progress

__all__ = ["BATCHES", "ClaimsResult", "measure_claims"]

BATCH = 100
BATCHES, TASKS = f"in batches of {BATCH}", "by one task per claim"


@dataclass
class ClaimsResult:
    """Renewing each claim once per period; the lists have an entry per period.

    Attributes:
        database: The kind of database.
        way: How the renewals are spread over the period.
        claims: Number of claims.
        period_s: Time between two renewals of a claim.
        percent: Processor time of this process, in percent of one core.
        server_percent: The same of the database server, if there is one.
        took_s: Time until the last claim was renewed.
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
    """Hold `count` claims and renew each of them once per period."""
    results: list[ClaimsResult] = []
    for database in DATABASES:
        url = await servers.url(database, "claims")
        async with open_store(url) as store:
            claims: list[RunClaim] = []
            for start in range(0, count, BATCH):
                numbers = range(start, min(start + BATCH, count))
                claims += await asyncio.gather(*(_claim(store, number) for number in numbers))
            server = None if database == "SQLite" else await _server(url)
            await _in_batches(store, claims[:BATCH], 0.0)  # warms up
            for way, renew in ((BATCHES, _in_batches), (TASKS, _by_tasks)):
                result = ClaimsResult(database, way, count, period_s)
                for _ in range(periods):
                    await _period(result, renew, store, claims, server)
                results.append(result)
        progress(f"renewed {count:,} claims on {database}")
    return results


async def _claim(store: ResumableWorkflowStore, number: int) -> RunClaim:
    run = WorkflowExecutionState(
        run_task_id=f"run-{number:09d}", agent_id="a", thread_id="t", user_id="u", definition={}
    )
    await store.create_run(run)
    claim = await store.claim_run(run.run_task_id, owner="benchmark")
    assert claim is not None  # noqa: S101 - the only owner
    return claim


async def _period(
    result: ClaimsResult,
    renew: Callable[[ResumableWorkflowStore, Sequence[RunClaim], float], Awaitable[None]],
    store: ResumableWorkflowStore,
    claims: Sequence[RunClaim],
    server: psutil.Process | None,
) -> None:
    gc.collect()
    server_begin = _cpu_s(server) if server else 0.0
    cpu_begin, begin = time.process_time(), time.perf_counter()
    await renew(store, claims, result.period_s)
    result.took_s.append(time.perf_counter() - begin)
    result.percent.append((time.process_time() - cpu_begin) / result.period_s * 100)
    if server:
        result.server_percent.append((_cpu_s(server) - server_begin) / result.period_s * 100)


async def _in_batches(
    store: ResumableWorkflowStore, claims: Sequence[RunClaim], period_s: float
) -> None:
    """Renew a batch at a time, as one loop over all runs does."""
    begin = time.perf_counter()
    for start in range(0, len(claims), BATCH):
        due = begin + period_s * start / len(claims)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await asyncio.gather(*(store.renew_claim(claim) for claim in claims[start : start + BATCH]))


async def _by_tasks(
    store: ResumableWorkflowStore, claims: Sequence[RunClaim], period_s: float
) -> None:
    """Renew each claim on its own, as a heartbeat per run does."""
    begin = time.perf_counter()

    async def renew(number: int, claim: RunClaim) -> None:
        due = begin + period_s * number / len(claims)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await store.renew_claim(claim)

    await asyncio.gather(*(renew(number, claim) for number, claim in enumerate(claims)))


async def _server(url: str) -> psutil.Process | None:
    connection = await asyncpg.connect(url)
    try:
        # Otherwise autovacuum would do this during the measurement.
        await connection.execute("VACUUM ANALYZE")
        return psutil.Process(await connection.fetchval("SELECT pg_backend_pid()")).parent()
    finally:
        await connection.close()


def _cpu_s(server: psutil.Process) -> float:
    """Return the processor time of a server, including child processes that have ended."""
    own = server.cpu_times()
    total: float = own.user + own.system + own.children_user + own.children_system
    for child in server.children():
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
