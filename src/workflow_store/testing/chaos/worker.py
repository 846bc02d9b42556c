"""A process of `make chaos`: opens a store and lets clients call it, until its input ends.

Run as `python -m workflow_store.testing.chaos.worker CONFIGURATION`, JSON of `Settings`. It
prints a line of JSON several times a second.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import WorkflowStoreError
from ...factory import open_store
from ...store import ResumableWorkflowStore
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
        ending: `close`; `abandon` ends the event loop with calls in flight and the store open;
            `fork` also makes processes that try to use the store.
        uvloop: whether to use uvloop, which must be installed.
    """

    url: str
    file: str
    options: dict[str, Any]
    workload: Workload
    ending: str = "close"
    uvloop: bool = False

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
    store = open_store(settings.url, **settings.options)
    await store.open()
    clients = Clients(RecordedStore(store, recorder), settings.workload)
    loop = asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(clients.stopping.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    reporting = asyncio.create_task(_report(recorder, clients))
    calling = asyncio.create_task(clients.run())
    if settings.ending == "abandon":
        await clients.stopping.wait()
        _print(recorder, clients, {})
        return
    if settings.ending == "fork":
        await _fork_repeatedly(store, clients)
    try:
        await calling
    finally:
        reporting.cancel()
        await store.close()
        _print(recorder, clients, {})
    recorder.close()


async def _fork_repeatedly(store: ResumableWorkflowStore, clients: Clients) -> None:
    """Let forked processes use the store, which must refuse that."""
    while not clients.stopping.is_set():
        child = os.fork()
        if not child:
            try:
                asyncio.run(store.delete_run("run-0-0"))
            except WorkflowStoreError as error:
                os._exit(3 if type(error) is WorkflowStoreError else 4)
            except BaseException:
                os._exit(5)
            os._exit(6)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        if os.waitstatus_to_exitcode(status) != 3:
            clients.undocumented[f"a forked process ended with {status}"] += 1
        await asyncio.sleep(0.2)


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


def _main() -> None:
    settings = Settings.decoded(sys.argv[1])
    if settings.uvloop:
        importlib.import_module("uvloop").install()
    asyncio.run(_run(settings))


if __name__ == "__main__":
    _main()
