"""The process that runs DBOS: one turn for each line on its standard input."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from typing import Any

from dbos import DBOS

from ..subject import CRASH, POWER_LOSS
from ..values import Json, Values

READ_LIMIT = 60_000
"""Characters of one answer; asyncio reads lines of up to 64 KiB by default."""


class _Turn:
    """State shared by the steps of a turn, since DBOS steps keep none across a recovery."""

    values: Values
    deadline: float
    latencies_s: list[float]


@DBOS.step()
async def _step() -> Json:
    return _Turn.values.next()


@DBOS.workflow()
async def _workflow() -> None:
    while (before := time.perf_counter()) < _Turn.deadline:
        await _step()
        _Turn.latencies_s.append(time.perf_counter() - before)


async def _serve(url: str) -> None:
    _answer({"survives": _survives(url)})
    loop = asyncio.get_running_loop()
    supplies: dict[int, Values] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        tasks, seconds, size = line.split()
        if int(size) not in supplies:
            supplies[int(size)] = Values(int(size), distinct=256)
        _Turn.values, _Turn.latencies_s = supplies[int(size)], []
        begin = time.perf_counter()
        _Turn.deadline = begin + float(seconds)
        await asyncio.gather(*(_workflow() for _ in range(int(tasks))))
        elapsed_s = time.perf_counter() - begin
        # Enough latencies for the percentiles, few enough for one line.
        sampled = _Turn.latencies_s[:: len(_Turn.latencies_s) * 10 // READ_LIMIT + 1]
        _answer({"count": len(_Turn.latencies_s), "elapsed_s": elapsed_s,
              "latencies_s": [round(latency, 6) for latency in sampled]})  # fmt: skip


def _survives(url: str) -> str:
    if not url.startswith("sqlite"):
        return POWER_LOSS
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        ((mode,),) = connection.execute("PRAGMA journal_mode")
        ((level,),) = connection.execute("PRAGMA synchronous")
    # With a rollback journal, NORMAL survives power loss except on some old file systems:
    # https://www.sqlite.org/pragma.html#pragma_synchronous
    return POWER_LOSS if level >= 2 or mode != "wal" else CRASH


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": sys.argv[1],
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        asyncio.run(_serve(sys.argv[1]))
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main()
