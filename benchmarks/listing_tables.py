"""Tables of runs to list, with the same mix of values at every size."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from workflow_store import TaskStatus

__all__ = ["RunTable", "Selection", "selections"]

AGENTS, WORKSPACES = 5, 8
RUNS_PER_USER, RUNS_PER_THREAD = 200, 100
RARE_RUNS = 8

_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RunTable:
    """Runs of two steps each, created one per second, and identified here by their number."""

    count: int

    def run_id(self, number: int) -> str:
        # Scattered in an index like a random UUID, but reproducible.
        return str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 1) % 2**128))

    def created_at(self, number: int) -> datetime:
        return _START + timedelta(seconds=number)

    def thread(self, number: int) -> int:
        return number % (self.count // RUNS_PER_THREAD)

    def user(self, number: int) -> int:
        return number % (self.count // RUNS_PER_USER)

    def status(self, number: int) -> TaskStatus:
        """Return the status of the second step; the first is completed."""
        if number % (self.count // RARE_RUNS) == 51:
            return TaskStatus.RUNNING
        if number % 100 == 37:
            return TaskStatus.INPUT_REQUIRED
        return TaskStatus.FAILED if number % 5 == 3 else TaskStatus.COMPLETED

    def runs(self, encode: Callable[[datetime], Any]) -> Iterator[tuple[Any, ...]]:
        definition = f'{{"name":"research","steps":["search","answer"],"text":"{"x" * 350}"}}'
        for number in range(self.count):
            time = encode(self.created_at(number))
            workspace = number % WORKSPACES
            yield (
                self.run_id(number), f"agent-{number % AGENTS}", f"thread-{self.thread(number)}",
                f"user-{self.user(number)}", f"workspace-{workspace}" if workspace else None,
                definition, f'{{"question":{number}}}', f'{{"number":{number},"{"y" * 200}":1}}',
                time, time,
            )  # fmt: skip

    def steps(self, encode: Callable[[datetime], Any]) -> Iterator[tuple[Any, ...]]:
        for number in range(self.count):
            run, time = self.run_id(number), encode(self.created_at(number))
            result = f'{{"number":{number},"text":"{"z" * 80}"}}'
            yield run, "search", TaskStatus.COMPLETED.value, result, None, time, time, None
            yield run, "answer", self.status(number).value, None, None, time, None, None


@dataclass(frozen=True)
class Selection:
    """A filter, and the runs of a table that match it.

    Attributes:
        name: Its label in the report.
        matches: Whether the run of a number matches.
        filters: The arguments of `list_runs`.
    """

    name: str
    matches: Callable[[int], bool]
    filters: dict[str, Any] = field(default_factory=dict)

    def numbers(self, table: RunTable, *, skip: int, count: int) -> list[int]:
        """Return the numbers of matching runs, newest first."""
        newest_first = range(table.count - 1, -1, -1)
        return list(islice(filter(self.matches, newest_first), skip, skip + count))

    def skipped(self, table: RunTable, *, limit: int, page: int) -> int:
        """Return how many runs come before a page, or before the last full page."""
        matching = len(self.numbers(table, skip=0, count=page * limit))
        return max(matching // limit - 1, 0) * limit


def selections(table: RunTable) -> list[Selection]:
    """Return no filter, and each filter alone."""
    middle = table.count // 2
    between = table.created_at(middle)
    return [
        Selection("none", _every),
        Selection("agent_id", lambda n: n % AGENTS == 2, {"agent_id": "agent-2"}),
        Selection("thread_id", lambda n: table.thread(n) == 3, {"thread_id": "thread-3"}),
        Selection("user_id", lambda n: table.user(n) == 3, {"user_id": "user-3"}),
        Selection("workspace_id", lambda n: n % WORKSPACES == 3, {"workspace_id": "workspace-3"}),
        _by_status(table, TaskStatus.FAILED, "1 in 5 runs"),
        _by_status(table, TaskStatus.INPUT_REQUIRED, "1 in 100 runs"),
        _by_status(table, TaskStatus.RUNNING, f"{RARE_RUNS} runs"),
        Selection("step_status, completed", _every, {"step_status": TaskStatus.COMPLETED}),
        Selection("created_after", lambda n: n > middle, {"created_after": between}),
        Selection("created_before", lambda n: n < middle, {"created_before": between}),
    ]


def _by_status(table: RunTable, status: TaskStatus, frequency: str) -> Selection:
    return Selection(
        f"step_status, {frequency}",
        lambda n: table.status(n) is status,
        {"step_status": status},
    )


def _every(_: int) -> bool:
    return True
