"""A PostgreSQL server as its clients see it. One lock on all tables replaces those on rows."""

from __future__ import annotations

from collections import deque

from .loop import World
from .sessions import Client, Session
from .sql import Database

__all__ = ["EPOCH", "Server"]

EPOCH = 1_767_225_600.0
"""The server's time at the start of a simulation: 2026-01-01."""


class Server:
    """The server: its sessions, its tables, and the lock on them.

    Attributes:
        is_up: whether it accepts connections.
        sessions: the sessions that exist, by process id.
    """

    def __init__(self, world: World, database: Database) -> None:
        self.world = world
        self.database = database
        self.is_up = True
        self.sessions: dict[int, Session] = {}
        self.holder: Session | None = None
        self._queue: deque[Session] = deque()
        self._last_pid = 100

    def now(self) -> float:
        return EPOCH + self.world.time

    def connect(self, client: Client) -> Session:
        """Start a session. After a restart, process ids are used again."""
        self._last_pid += 1
        session = Session(self, self._last_pid, client)
        self.sessions[session.pid] = session
        return session

    def restart(self, down_s: float) -> None:
        """Stop the server at once, with all sessions, and start it later."""
        if not self.is_up:
            return
        self.world.note(f"server: immediate shutdown for {down_s:.2f} s")
        self.is_up = False
        for session in list(self.sessions.values()):
            session.end()
        self._last_pid = 100
        self.world.later(down_s, self._start)

    def _start(self) -> None:
        self.world.note("server: starts")
        self.is_up = True

    def lock(self, session: Session) -> bool:
        """Take the lock, or queue for it."""
        if self.holder is None:
            self.holder = session
        elif self.holder is not session and session not in self._queue:
            self._queue.append(session)
        return self.holder is session

    def unlock(self, session: Session) -> None:
        """Release the lock, or leave the queue."""
        if session in self._queue:
            self._queue.remove(session)
        if self.holder is not session:
            return
        self.database.rollback()
        self.holder = self._queue.popleft() if self._queue else None
        if self.holder is not None:
            self.world.later(0.0001, self.holder.proceed)
