"""The sessions of a PostgreSQL server: processes that execute messages, late or never.

A session reads one message after the other. It can be paused, and then executes what it received
when it resumes; it can be terminated, and a paused one ends only when it resumes. What a client
sent before its connection closed is still executed.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from .loop import Loop
from .sql import Database, is_read

if TYPE_CHECKING:
    from .server import Server

__all__ = ["REPEATABLE", "Client", "Fate", "Message", "Session"]

REPEATABLE = "BEGIN ISOLATION LEVEL REPEATABLE READ;"
"""Begins a transaction all of whose statements, which only read, see one snapshot."""


@dataclass(slots=True)
class Fate:
    """What goes wrong with a message.

    Attributes:
        kind: one of the kinds in `faults.MESSAGE_FAULTS`.
        delay_s: how long a pause or a stall takes.
    """

    kind: str
    delay_s: float


@dataclass(slots=True, eq=False)
class Message:
    """A statement on its way. `reply` sends a result or an error back; None to disconnect."""

    sql: str
    arguments: tuple[Any, ...]
    reply: Callable[[Any, BaseException | None], None]
    fate: Fate | None = None


_ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "SELECT 1": [(1,)],
    ";": [],
    "select pg_catalog.version()": [("PostgreSQL 17.0 (simulated)",)],
    "SELECT pg_is_in_recovery()": [(False,)],
    "select current_schema()": [("public",)],
    "show standard_conforming_strings": [("on",)],
    "show transaction isolation level": [("read committed",)],
}
_ERRORS = {
    "serialization": asyncpg.SerializationError,
    "deadlock": asyncpg.DeadlockDetectedError,
    "disk_full": asyncpg.DiskFullError,
}


class Client(Protocol):
    """The client's end of a connection."""

    loop: Loop

    def server_closed(self, error: BaseException | None) -> None:
        """Notice that the session ended, with its last message."""

    def hang_up(self) -> None:
        """Close the connection after what was sent, as the death of the process does."""


class Session:
    """A process of the server, which executes the messages of one connection in their order."""

    def __init__(self, server: Server, pid: int, client: Client) -> None:
        self.server = server
        self.world = server.world
        self.pid = pid
        self.started_at = datetime.fromtimestamp(server.now(), UTC)
        self.timeout_s: float | None = None
        self.locks: set[int] = set()
        self.is_paused = False
        self.has_ended = False
        self.client = client
        self._inbox: deque[Message | None] = deque()
        self._executing: Message | None = None
        self._is_busy = False
        self._in_block = False
        self._is_repeatable = False
        self._snapshot: Database | None = None
        self._has_failed = False
        self._is_terminating = False
        self._cancelled = False
        self._deferred: Callable[[], None] | None = None

    # -- signals ------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Stop the process for a time, as SIGSTOP does."""
        if self.is_paused or self.has_ended:
            return
        self.world.note(f"session {self.pid}: paused for {seconds:.2f} s")
        self.is_paused = True
        self.world.later(seconds, self.resume)

    def resume(self) -> None:
        """Continue a paused process; it handles the signals that it received meanwhile."""
        if not self.is_paused or self.has_ended:
            return
        self.world.note(f"session {self.pid}: resumes")
        self.is_paused = False
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            # A signal may come too late for a statement that is about to commit, or in the
            # middle of its commit: a server that waits for its standby then closes the
            # connection without an answer.
            if self._is_terminating and self.world.random.random() < 0.5:
                pass
            elif self._cancelled and self.world.random.random() < 0.5:
                self._abort(_error(asyncpg.QueryCanceledError))
            else:
                deferred()
        if self._is_terminating:
            self._interrupt()
        else:
            self._wake()

    def terminate(self) -> None:
        """End the session, as `pg_terminate_backend` does: a paused one when it resumes."""
        self.world.note(f"session {self.pid}: is being terminated")
        self._is_terminating = True
        self.world.later(self.world.random.random() * 0.002, self._interrupt)

    def cancel(self) -> None:
        """Cancel the statement that is being executed, if any."""
        if self._executing is None or self.has_ended:
            return
        self._cancelled = True
        if not self.is_paused:
            self._abort(_error(asyncpg.QueryCanceledError))
            self._wake()

    def _interrupt(self) -> None:
        if self.is_paused or self.has_ended:
            return
        self.end(_error(asyncpg.AdminShutdownError, "FATAL"))

    # -- messages -----------------------------------------------------------------------

    def receive(self, message: Message | None) -> None:
        """Receive a message; None is the end of the connection."""
        if self.has_ended:
            return
        self._inbox.append(message)
        if message is not None and message.fate is not None:
            if message.fate.kind == "pause":
                self.pause(message.fate.delay_s)
            elif message.fate.kind == "terminate":
                self.terminate()
        self._wake()

    def _wake(self) -> None:
        if self._inbox and not (self.is_paused or self._is_busy or self.has_ended):
            self._is_busy = True
            self.world.later(self.world.random.random() * 0.002, self._read)

    def _read(self) -> None:
        if self.has_ended:
            return
        if self.is_paused or self._is_terminating:
            self._is_busy = False  # it reads the message when it resumes
            return
        message = self._inbox.popleft()
        if message is None:
            self.end()
            return
        self._executing = message
        self._cancelled = False
        self.proceed()

    def proceed(self) -> None:
        """Go on with the message, now that the lock may be free."""
        message = self._executing
        if message is None or self.has_ended:
            self.server.unlock(self)
        elif self.is_paused:
            self._deferred = self.proceed
        elif self._needs_lock(message.sql) and not self.server.lock(self):
            if self.timeout_s is not None:
                self.world.later(self.timeout_s, self._time_out, message)
        elif message.fate is not None and message.fate.kind == "pause_executing":
            self.pause(message.fate.delay_s)
            message.fate = None
            self._deferred = self.proceed
        else:
            self._complete(message)

    def _needs_lock(self, sql: str) -> bool:
        return not (_is_system(sql) or _is_control(sql) or is_read(sql))

    def _complete(self, message: Message) -> None:
        kind = message.fate.kind if message.fate else ""
        try:
            if kind in _ERRORS and _may_fail(message.sql):
                raise _error(_ERRORS[kind])
            answer = self._execute(message.sql, message.arguments)
        except (asyncpg.PostgresError, sqlite3.IntegrityError) as error:
            self._abort(_as_postgres_error(error))
        else:
            if self.world.trace is not None:
                self.world.note(f"session {self.pid}: executed {_shown(message)} -> {answer}")
            if self._is_terminating and self.world.random.random() < 0.5:
                self._executing = None
                self.end()
                return
            self._finish(answer, None)
        if kind == "terminate_after":
            self.terminate()
        self._wake()

    def _execute(self, sql: str, arguments: tuple[Any, ...]) -> tuple[str, list[Any]]:
        verb = sql[:8].rstrip("; ").upper()
        if verb.startswith("BEGIN"):
            self._in_block = True
            self._is_repeatable = sql == REPEATABLE
            if "pg_advisory_xact_lock" in sql:
                self.locks.add(int(sql.rpartition("(")[2].rstrip(")")))
            return "BEGIN", []
        if verb in {"COMMIT", "ROLLBACK"}:
            return self._end_block(commit=verb == "COMMIT" and not self._has_failed), []
        if self._has_failed:
            raise _error(asyncpg.InFailedSQLTransactionError)
        if _is_system(sql):
            return "SELECT 1", self._system(sql, arguments)
        database = self.server.database
        if self._is_repeatable:
            self._snapshot = self._snapshot or database.snapshot()
            return self._snapshot.execute(sql, arguments)
        if self._in_block and self.server.holder is self:
            return database.execute_in_transaction(sql, arguments)
        return database.execute(sql, arguments)

    def _system(self, sql: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Execute a statement about the server."""
        sessions = self.server.sessions
        rows = _ANSWERS.get(sql, [(None,)])
        if "set_config" in sql:
            self.timeout_s = int(arguments[0].removesuffix("ms")) / 1000
        elif "pg_advisory_xact_lock" in sql:
            self.locks.add(arguments[0])
        elif "pg_backend_pid()" in sql:
            rows = [(self.pid, self.started_at)]
        elif "pg_terminate_backend" in sql:
            if "pg_locks" in sql:
                key = arguments[0] << 32 | arguments[1]
                found = [session for session in sessions.values() if key in session.locks]
            else:
                pid, started_at = arguments
                found = [s for s in sessions.values() if (s.pid, s.started_at) == (pid, started_at)]
            for session in found:
                session.terminate()
            rows = [(True,) for _ in found]
        return rows

    def _end_block(self, *, commit: bool) -> str:
        if commit and self.server.holder is self:
            self.server.database.commit()
        self.server.unlock(self)
        self._in_block = self._has_failed = self._is_repeatable = False
        self._snapshot = None
        self.timeout_s = None
        self.locks.clear()
        return "COMMIT" if commit else "ROLLBACK"

    def _time_out(self, message: Message) -> None:
        if self._executing is message and self.server.holder is not self and not self.is_paused:
            self._abort(_error(asyncpg.QueryCanceledError))
            self._wake()

    def _abort(self, error: BaseException) -> None:
        """End the statement without an effect."""
        self._deferred = None
        if self._executing is not None:
            self.world.note(f"session {self.pid}: {error!r} for {_shown(self._executing)}")
        if self._executing is not None and self._executing.sql.startswith("COMMIT"):
            self._end_block(commit=False)
        self._has_failed = self._in_block
        if self._in_block and self.server.holder is not self:
            self.server.unlock(self)  # leave the queue
        self._finish(None, error)

    def _finish(self, answer: Any, error: BaseException | None) -> None:
        message, self._executing = self._executing, None
        if not self._in_block:
            self.server.unlock(self)
        self._is_busy = False
        if message is not None:
            message.reply(answer, error)

    def end(self, error: BaseException | None = None) -> None:
        """End the process: its transaction is rolled back, and its connection closed."""
        if self.has_ended:
            return
        self.world.note(f"session {self.pid}: ends")
        self.has_ended = True
        self.server.unlock(self)
        self.server.sessions.pop(self.pid, None)
        self.client.server_closed(error)


def _is_control(sql: str) -> bool:
    return sql.startswith(("BEGIN", "COMMIT", "ROLLBACK"))


@cache
def _is_system(sql: str) -> bool:
    return sql in _ANSWERS or "pg_" in sql or "set_config" in sql


def _may_fail(sql: str) -> bool:
    return sql.startswith("COMMIT") or not (_is_system(sql) or _is_control(sql))


def _error(type_: type[asyncpg.PostgresError], severity: str = "ERROR") -> BaseException:
    error: BaseException = type_("simulated")
    error.severity_en = severity  # type: ignore[attr-defined]
    return error


def _as_postgres_error(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.IntegrityError):
        return _error(asyncpg.ForeignKeyViolationError)
    return error


def _shown(message: Message) -> str:
    return f"{' '.join(message.sql.split())[:60]} {message.arguments!r:.200}"
