"""What goes wrong in a simulation, drawn from its seed."""

from __future__ import annotations

from random import Random

import asyncpg

from .sessions import Fate

__all__ = ["MESSAGE_FAULTS", "Faults"]

MESSAGE_FAULTS = {
    "cut_before": "the connection is cut before the message arrives",
    "cut_sent": "the connection is cut when the message was sent, which still arrives",
    "cut_answer": "the connection is cut after the execution and before the answer",
    "stall": "the network delivers the message late",
    "stall_answer": "the network delivers the answer late",
    "pause": "the session is paused before it reads the message",
    "pause_executing": "the session is paused while it executes, with its locks",
    "terminate": "the session is terminated when the message arrives",
    "terminate_after": "the session is terminated after the execution",
    "serialization": "the server rolls back: serialization failure",
    "deadlock": "the server rolls back: deadlock",
    "disk_full": "the server rolls back: disk full",
}
_LATE = ("pause", "pause_executing", "stall")
"""A message is executed after the client has given up, if at all."""


class Faults:
    """Draws delays and faults; each seed has some of the kinds, often or rarely.

    Attributes:
        is_healed: whether nothing goes wrong any more.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.is_healed = False
        self._scale_s = random.choice([0.0005, 0.002, 0.01])
        kinds = list(MESSAGE_FAULTS)
        self.kinds = random.sample(kinds, random.choice([0, 1, 1, 2, 3, 6]))
        if random.random() < 0.2:
            self.kinds = list(_LATE)
        self.rate = random.choice([0.02, 0.08, 0.2]) if self.kinds else 0.0
        self._pause_s = random.choice([0.2, 1.5, 4.0, 4.0])

    def latency(self) -> float:
        """Return the seconds of a way through the network."""
        return self._random.random() * self._scale_s

    def connect_delay(self) -> float:
        """Return how much longer it takes to connect: in general 0."""
        if not self.is_healed and self._random.random() < self.rate:
            return self._random.random() * 2
        return 0.0

    def fate(self, sql: str) -> Fate | None:
        """Return what goes wrong with a message, if anything."""
        if self.is_healed or self._random.random() >= self.rate:
            return None
        kind = self._random.choice(self.kinds)
        return Fate(kind, self._pause_s * (0.5 + self._random.random()))

    def loss_error(self) -> BaseException:
        """Return the error that asyncpg raises for a lost connection."""
        error: BaseException = asyncpg.ConnectionDoesNotExistError("connection was closed")
        if self._random.random() < 0.1:
            error = asyncpg.InternalClientError("got result for unknown protocol state 3")
        return error
