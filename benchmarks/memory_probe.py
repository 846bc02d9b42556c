"""The process whose memory is measured: `memory_probe URL MODE CALLERS`."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

import psutil

from workflow_store import WorkflowExecutionState, WorkflowStepState, open_store

from .values import KILOBYTE, Values

RUNS = 64
MIB = 2**20


async def _main(url: str, mode: str, callers: int) -> dict[str, Any]:
    async with open_store(url) as store:
        values = Values(KILOBYTE, distinct=4096)
        for run in range(RUNS):
            await store.create_run(
                WorkflowExecutionState(
                    run_task_id=f"run-{run}", agent_id="a", thread_id="t", user_id="u",
                    definition={},
                )
            )  # fmt: skip

        async def write(number: int) -> None:
            step = WorkflowStepState(step_id=f"step-{number:09d}", result=values.next())
            await store.upsert_step(f"run-{number % RUNS}", step)

        gate = asyncio.Event()

        async def wait(number: int) -> None:
            step = WorkflowStepState(step_id=f"step-{number:09d}", result=values.next())
            await gate.wait()
            del step

        # Everything is imported, connected and compiled before the idle process is looked at.
        await asyncio.gather(*(write(number) for number in range(1_000)))
        idle = psutil.Process().memory_info().rss
        if mode == "callers alone":
            waiting = asyncio.gather(*(wait(number) for number in range(1_000, 1_000 + callers)))
            await asyncio.sleep(0)  # a turn of the loop, in which all of them begin
            gate.set()
            await waiting
        else:
            await asyncio.gather(*(write(number) for number in range(1_000, 1_000 + callers)))
    peak = _peak()
    return {"callers": callers, "idle_mib": idle / MIB, "peak_mib": peak / MIB,
            "over_idle_mib": (peak - idle) / MIB}  # fmt: skip


def _peak() -> int:
    """Give the peak of this program; getrusage's includes that of the one that forked it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    url, mode, callers = sys.argv[1:]
    print(json.dumps(asyncio.run(_main(url, mode, int(callers)))))
