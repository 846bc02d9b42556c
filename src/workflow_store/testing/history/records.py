"""Records of the calls of concurrent clients, as JSON lines.

A call is two lines, so that one that never returned is known, too: its process was killed.

    {"call": 7, "store": "a", "run": "r", "method": "upsert_step", "arguments": {…}, "began": 1}
    {"call": 7, "store": "a", "ended": 2, "answer": null}

The second line has an `answer`, or the name of an `error`. Times are nanoseconds of
`CLOCK_MONOTONIC`, which the processes of a machine share. Two more kinds of lines may occur:

    {"store": "a", "gone": 3}
    {"clock": {"monotonic": 1, "server": 1790000000000000000}}

After the first, no call of that store object takes effect: its process is dead, and so are its
sessions on the server. The second relates the clock of the server to that of the records; null
in place of the times says that it was set meanwhile, so that the ends of leases say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["UNKNOWN_OUTCOMES", "Fence", "History", "Operation", "read_history"]

UNKNOWN_OUTCOMES = frozenset({"StoreUnavailableError", "CancelledError"})
"""After one of these, a write may or may not have been applied."""


class Fence(NamedTuple):
    """The claim of a fenced view."""

    run: str
    token: int


@dataclass(slots=True)
class Operation:
    """A call and its end.

    Attributes:
        call: the number of the call, unique for its store.
        store: the store object, unique among all processes. Fenced views have the name of the
            store that they are views of.
        run: the run, or "" if the method names none.
        method: the name of the method.
        arguments: the arguments by name, as JSON.
        began: when the call began.
        fence: the claim, if the store is a fenced view.
        ended: when it ended; None if its process was killed before.
        answer: what it returned, as JSON.
        error: the name of the exception; None if it returned or never ended.
    """

    call: int
    store: str
    run: str
    method: str
    arguments: dict[str, Any]
    began: int
    fence: Fence | None = None
    ended: int | None = None
    answer: Any = None
    error: str | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether a write may or may not have been applied."""
        return self.ended is None or self.error in UNKNOWN_OUTCOMES

    def __str__(self) -> str:
        end = "never ended" if self.ended is None else self.error or f"-> {_short(self.answer)}"
        span = f"{self.began / 1e9:.6f}–{'' if self.ended is None else f'{self.ended / 1e9:.6f}'}"
        fence = "" if self.fence is None else f" [claim {self.fence.token}]"
        arguments = ", ".join(_short(value) for value in self.arguments.values())
        return f"{span} {self.store} {self.method}({self.run}, {arguments}){fence} {end}"


@dataclass(slots=True)
class History:
    """All that was recorded.

    Attributes:
        operations: the calls, in any order.
        gone: when a store object was known to be gone, with its sessions on the server.
        server_clock_ns: what to add to a time of the records for the time of the server's
            clock, in nanoseconds since 1970; None if it is not known.
        steady_clock: whether the server's clock was not set meanwhile.
    """

    operations: list[Operation] = field(default_factory=list)
    gone: dict[str, int] = field(default_factory=dict)
    server_clock_ns: int | None = None
    steady_clock: bool = True


def read_history(*files: Path) -> History:
    """Return what was recorded in files, one or more for each process.

    The last line of a file may be incomplete, if its process was killed.

    Raises:
        ValueError: another line is no record.
    """
    history = History()
    open_calls: dict[tuple[str, int], Operation] = {}
    for file in files:
        for record in _records(file):
            if "gone" in record:
                history.gone[record["store"]] = record["gone"]
            elif "clock" in record:
                clock = record["clock"]
                if clock is None:
                    history.steady_clock = False
                else:
                    history.server_clock_ns = clock["server"] - clock["monotonic"]
            elif "began" in record:
                if "fence" in record:
                    record["fence"] = Fence(*record["fence"])
                operation = Operation(**record)
                open_calls[operation.store, operation.call] = operation
                history.operations.append(operation)
            else:
                operation = open_calls.pop((record["store"], record["call"]))
                operation.ended = record["ended"]
                operation.answer = record.get("answer")
                operation.error = record.get("error")
    return history


def _records(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _short(value: Any, most: int = 90) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}…"
