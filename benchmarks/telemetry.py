"""What being observed costs a write: `python -m benchmarks.telemetry`, from the root.

Each way to be observed, or not, is a process of its own, since a provider is set once for a
whole process. All of them stay, and take turns in an order that changes from round to round.
A figure is a median over the rounds, with its quartiles beside it: of the rate as a ratio to
that without OpenTelemetry in the same round, and of what a write takes more processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .place import Place
from .values import KILOBYTE, Values

ABSENT = "OpenTelemetry absent"
OTHER = "another version, OpenTelemetry absent"
WAYS = (
    ABSENT,
    "the API, no SDK",
    "metrics",
    "metrics, 1 % of the spans",
    "metrics and all spans",
)
CELLS = [(synchronous, tasks) for synchronous in ("FULL", "NORMAL") for tasks in (1, 64)]


# -- in the process of a way -------------------------------------------------------------


def _observe(way: str) -> Callable[[], None]:
    """Set what the way says; give what throws away what was told."""
    if way in {ABSENT, OTHER}:
        sys.modules["opentelemetry"] = None  # type: ignore[assignment] # an import of it fails
        return lambda: None
    from opentelemetry import metrics, trace

    if way == "the API, no SDK":
        return lambda: None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    metrics.set_meter_provider(MeterProvider([reader]))
    tracers = TracerProvider(sampler=ParentBasedTraceIdRatio(1.0 if "all" in way else 0.01))
    if "spans" in way:
        tracers.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(tracers)

    def forget() -> None:
        tracers.force_flush()
        exporter.clear()
        reader.get_metrics_data()

    return forget


async def _take_turns(way: str, folder: Path) -> None:
    forget = _observe(way)
    from workflow_store import TaskStatus, WorkflowExecutionState, WorkflowStepState, open_store

    values = Values(KILOBYTE, distinct=4096)
    async with open_store(f"sqlite:///{folder}/FULL.db") as full, open_store(
        f"sqlite:///{folder}/NORMAL.db", synchronous="NORMAL"
    ) as normal:  # fmt: skip
        stores = {"FULL": full, "NORMAL": normal}
        for store in stores.values():
            for task in range(64):
                run = WorkflowExecutionState(
                    run_task_id=f"run-{task}", agent_id="a", thread_id="t", user_id="u",
                    definition={},
                )  # fmt: skip
                await store.create_run(run)
        while order := sys.stdin.readline():
            synchronous, tasks, seconds = json.loads(order)
            store = stores[synchronous]
            count = 0

            async def write(task: int, until: float, store: Any = store) -> None:
                nonlocal count
                number = 0
                while time.perf_counter() < until:
                    now = datetime.now(UTC)
                    step = WorkflowStepState(
                        step_id=f"step-{number % 500}", status=TaskStatus.COMPLETED,
                        result=values.next(), started_at=now, completed_at=now,
                    )  # fmt: skip
                    await store.upsert_step(f"run-{task}", step)
                    number += 1
                count += number

            gc.collect()
            begun, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(write(task, begun + seconds) for task in range(tasks)))
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
            forget()
            print(json.dumps({"rate": count / took, "cpu_us": cpu / count * 1e6}), flush=True)


# -- in the process that asks them --------------------------------------------------------


def _measure(rounds: int, seconds: float, other: Path | None) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    ways = WAYS if other is None else (*WAYS, OTHER)
    with ExitStack() as ends:
        place = ends.enter_context(Place())
        workers: dict[str, subprocess.Popen[str]] = {}
        for number, way in enumerate(ways):
            folder = place.folder / f"{number}"
            folder.mkdir()
            path = {"PYTHONPATH": str(other)} if way == OTHER else {}
            workers[way] = ends.enter_context(
                subprocess.Popen(  # noqa: S603 - this very program
                    [sys.executable, "-m", __spec__.name, "--way", way, "--folder", folder],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    env={**os.environ, **path},
                )
            )  # fmt: skip
            ends.callback(workers[way].kill)
        for round_ in range(rounds + 1):
            turns = [(way, cell) for cell in CELLS for way in ways]
            # Those of one cell stay neighbours, so that what else the machine does hits all.
            random.Random(round_).shuffle(turns)  # noqa: S311 - no secret
            turns.sort(key=lambda turn: CELLS.index(turn[1]))
            for way, cell in turns:
                os.sync()
                sample = _turn(workers[way], cell, seconds)
                if round_ > 0:  # the first one warms up
                    found.setdefault((way, cell), []).append(sample)
            print(f"round {round_} of {rounds}", file=sys.stderr)
        for worker in workers.values():
            worker.communicate()
    return found


def _turn(worker: subprocess.Popen[str], cell: tuple[str, int], seconds: float) -> Any:
    print(json.dumps([*cell, seconds]), file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())  # type: ignore[union-attr] # it is a pipe


def _table(found: dict[Any, list[Any]]) -> str:
    head = [
        f"{synchronous}, {tasks} task{'s' if tasks > 1 else ''}" for synchronous, tasks in CELLS
    ]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(CELLS)]
    for way in (w for w in (*WAYS, OTHER) if (w, CELLS[0]) in found):
        line = [way]
        for cell in CELLS:
            base = found[ABSENT, cell]
            ratios = [a["rate"] / b["rate"] for a, b in zip(found[way, cell], base, strict=True)]
            cpu = [a["cpu_us"] - b["cpu_us"] for a, b in zip(found[way, cell], base, strict=True)]
            if way == ABSENT:
                rate, us = (median(s[key] for s in base) for key in ("rate", "cpu_us"))
                line.append(f"{rate:,.0f} writes/s, {us:.0f} µs")
            else:
                line.append(f"{_spread(ratios, '.2f')}; {_spread(cpu, '+.1f')} µs")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how many rounds")
    parser.add_argument("--seconds", type=float, default=0.15, help="how long a turn takes")
    parser.add_argument("--other", type=Path, help="the src of another version to compare with")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        asyncio.run(_take_turns(arguments.way, arguments.folder))
    else:
        print(_table(_measure(arguments.rounds, arguments.seconds, arguments.other)))


if __name__ == "__main__":
    main()
