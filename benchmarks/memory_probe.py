"""The process whose memory is measured: `memory_probe URL CALLERS WRITE`, WRITE being 0 or 1."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

import psutil

from workflow_store import WorkflowExecutionState, WorkflowStepState, open_store

from .values import KILOBYTE, Json, Values

RUNS = 64
WARM_UP = 1_000
MIB = 2**20


async def _main(url: str, callers: int, write: bool) -> Json:
    async with open_store(url) as store:
        values = Values(KILOBYTE, distinct=4096)
        for number in range(RUNS):
            run = WorkflowExecutionState(
                run_task_id=f"run-{number}", agent_id="a", thread_id="t", user_id="u", definition={}
            )
            await store.create_run(run)
        gate = asyncio.Event()

        async def call(number: int, write: bool) -> None:
            step = WorkflowStepState(step_id=f"step-{number:09d}", result=values.next())
            if write:
                await store.upsert_step(f"run-{number % RUNS}", step)
            else:
                await gate.wait()

        # Import, connect and compile everything before the idle process is measured.
        await asyncio.gather(*(call(number, True) for number in range(WARM_UP)))
        idle = psutil.Process().memory_info().rss
        waiting = asyncio.gather(*(call(WARM_UP + number, write) for number in range(callers)))
        await asyncio.sleep(0)  # one turn of the event loop, in which all tasks start
        gate.set()
        await waiting
    peak = _peak()
    return {"idle_mib": idle / MIB, "peak_mib": peak / MIB, "over_idle_mib": (peak - idle) / MIB}


def _peak() -> int:
    """Return the peak of this program; on Linux, getrusage includes the parent's before exec."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    url, callers, write = sys.argv[1:]
    print(json.dumps(asyncio.run(_main(url, int(callers), write == "1"))))
