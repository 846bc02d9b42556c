"""A process of `make chaos`: opens a store and lets clients call it, until its input ends.

Run as `python -m workflow_store.testing.chaos.worker CONFIGURATION`, JSON of `Settings`. It
prints a line of JSON several times a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ...factory import open_store
from ..history import RecordedStore, Recorder
from .workload import Clients, Workload

__all__ = ["Report", "Settings"]

TICK_S: Final = 0.1
WRITES: Final = frozenset(
    {"create_run", "update_context", "delete_run", "upsert_step", "commit_step"}
    | {"renew_claim", "release_claim"}
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process does.

    Attributes:
        url: the database.
        file: where its calls are recorded.
        options: the options of the store.
        workload: what its clients do.
    """

    url: str
    file: str
    options: dict[str, Any]
    workload: Workload

    def encoded(self) -> str:
        """Return the argument of the process."""
        return json.dumps(asdict(self))

    @staticmethod
    def decoded(text: str) -> Settings:
        """Return the settings of an argument."""
        fields = json.loads(text)
        return Settings(**{**fields, "workload": Workload(**fields["workload"])})


@dataclass(slots=True)
class Report:
    """What a process has done so far.

    Attributes:
        writes: acknowledged writes.
        ended: calls that have ended, by method or by error.
        undocumented: errors that the package does not document.
        oldest_s: for how long the oldest call under way has been waiting, in the time in which
            this process ran.
        oldest: its method.
    """

    writes: int = 0
    ended: dict[str, int] | None = None
    undocumented: dict[str, int] | None = None
    oldest_s: float = 0.0
    oldest: str = ""


async def _run(settings: Settings) -> None:
    recorder = Recorder(Path(settings.file), settings.workload.name)
    async with open_store(settings.url, **settings.options) as store:
        clients = Clients(RecordedStore(store, recorder), settings.workload)
        loop = asyncio.get_running_loop()

        def wait_for_end() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(clients.stopping.set)

        threading.Thread(target=wait_for_end, daemon=True).start()
        reporting = asyncio.create_task(_report(recorder, clients))
        try:
            await clients.run()
        finally:
            reporting.cancel()
            _print(recorder, clients, {})
    recorder.close()


async def _report(recorder: Recorder, clients: Clients) -> None:
    ages: dict[int, int] = {}
    while True:
        ages = {number: ages.get(number, -1) + 1 for number in recorder.calls}
        _print(recorder, clients, ages)
        await asyncio.sleep(TICK_S)


def _print(recorder: Recorder, clients: Clients, ages: dict[int, int]) -> None:
    oldest = max(ages, key=ages.__getitem__, default=None)
    report = Report(
        sum(count for kind, count in recorder.ended.items() if kind in WRITES),
        recorder.ended,
        dict(clients.undocumented),
        0.0 if oldest is None else ages[oldest] * TICK_S,
        "" if oldest is None else recorder.calls[oldest],
    )
    os.write(1, json.dumps(asdict(report)).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(_run(Settings.decoded(sys.argv[1])))
