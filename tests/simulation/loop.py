"""Event loops on one virtual clock, in an order that a seed decides.

A world has one loop per simulated process. Time passes only if nothing is ready: the clock then
jumps to the next timer. A world without a timer and with unfinished work is a deadlock.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .faults import Faults
    from .server import Server

    _EventLoop = asyncio.BaseEventLoop  # typed without abstract methods
else:
    _EventLoop = asyncio.AbstractEventLoop

__all__ = ["Deadlock", "Loop", "World"]

_T = TypeVar("_T")


class Deadlock(Exception):  # noqa: N818 - a finding, not an error of the simulation
    """Work is unfinished, and nothing will ever happen."""


class _Handle:
    """What `asyncio.Handle` and `asyncio.TimerHandle` are, without their debug mode."""

    __slots__ = ("args", "callback", "context", "loop", "time")

    def __init__(
        self,
        loop: Loop | None,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context | None,
        time: float = 0.0,
    ) -> None:
        self.loop = loop
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self.time = time

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.time


class World:
    """The clock, the events of all processes and of the network, and the source of chance.

    Attributes:
        random: decides everything that is left to chance.
        time: seconds since the start.
        errors: exceptions that escaped from callbacks.
        trace: receives a line for each event, if set.
        server: the server that all processes use.
        faults: draws what goes wrong.
    """

    server: Server
    faults: Faults

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.random = Random(seed)
        self.time = 0.0
        self.errors: list[BaseException] = []
        self.trace = trace
        # asyncio promises the order of callbacks, but nothing about that of tasks.
        self.permutes = self.random.random() < 0.5
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_number = 0

    def note(self, text: str) -> None:
        """Trace an event."""
        if self.trace is not None:
            self.trace(f"{self.time:9.4f} {text}")

    def later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> _Handle:
        """Call outside of any process: an event of the network or of the server."""
        return self.push(_Handle(None, callback, args, None, self.time + delay_s))

    def push(self, handle: _Handle) -> _Handle:
        self._timer_number += 1
        heapq.heappush(self._timers, (handle.time, self._timer_number, handle))
        return handle

    def ready(self, handle: _Handle) -> _Handle:
        self._ready.append(handle)
        return handle

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        """Run until a condition holds when nothing is ready.

        Raises:
            Deadlock: it never will, or does not within `limit_s`.
        """
        end = self.time + limit_s
        outer = events._get_running_loop()  # pytest may run its own
        events._set_running_loop(None)
        try:
            while True:
                self._run_ready()
                if until():
                    return
                handle = self._next_timer()
                if handle is None or self.time > end:
                    raise Deadlock
                self._ready.append(handle)
        finally:
            events._set_running_loop(outer)

    def run_for(self, seconds: float) -> None:
        """Run everything that happens within a time."""
        reached: list[None] = []
        self.later(seconds, reached.append, None)
        self.run(lambda: bool(reached), seconds + 1)

    def _run_ready(self) -> None:
        ready, running = self._ready, events._get_running_loop()
        while ready:
            if self.permutes and len(ready) > 1:
                self._permute()
            handle = ready.popleft()
            callback, loop = handle.callback, handle.loop
            if callback is None:
                continue
            if loop is not None:
                if loop.is_dead or loop.is_stopped:
                    loop.keep(handle)
                    continue
                if loop is not running:
                    running = loop
                    events._set_running_loop(loop)
            try:
                if handle.context is None:
                    callback(*handle.args)
                else:
                    handle.context.run(callback, *handle.args)
            except Exception as error:
                self.errors.append(error)

    def _permute(self) -> None:
        """Let a task be the next, or leave the order as it is."""
        ready, random = self._ready, self.random
        if random.random() < 0.5:
            index = int(random.random() * len(ready))
            if isinstance(getattr(ready[index].callback, "__self__", None), asyncio.Task):
                ready.appendleft(ready[index])
                del ready[index + 1]

    def _next_timer(self) -> _Handle | None:
        timers = self._timers
        while timers:
            when, _, handle = heapq.heappop(timers)
            if handle.callback is not None:
                self.time = max(self.time, when)
                return handle
        return None


class Loop(_EventLoop):
    """The event loop of a simulated process, which can be stopped for a time, or die.

    Attributes:
        skew_s: how far the clock of the process is ahead of the server's.
        is_dead: whether the process crashed; what it had planned never happens.
        is_stopped: whether it runs nothing for a time.
    """

    def __init__(self, world: World, name: str, skew_s: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.skew_s = skew_s
        self.is_dead = False
        self.is_stopped = False
        self._kept: list[_Handle] = []

    def crash(self) -> None:
        """Kill the process, as SIGKILL does."""
        self.world.note(f"{self.name}: crashes")
        self.is_dead = True

    def stop_for(self, seconds: float) -> None:
        """Stop the process for a time, as SIGSTOP and SIGCONT do."""
        if not self.is_stopped:
            self.world.note(f"{self.name}: stops for {seconds:.2f} s")
            self.is_stopped = True
            self.world.later(seconds, self._resume)

    def _resume(self) -> None:
        self.is_stopped = False
        handles, self._kept = self._kept, []
        for handle in handles:
            self.world.ready(handle)

    def keep(self, handle: _Handle) -> None:
        """Keep a callback until the process continues."""
        if not self.is_dead:
            self._kept.append(handle)

    # -- what asyncio, SQLAlchemy and the package use of an event loop ---------------------

    def time(self) -> float:
        return self.world.time

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(self, callback, args, context or copy_context(), self.world.time)
        return self.world.ready(handle)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> _Handle:
        return self.world.push(_Handle(self, callback, args, context or copy_context(), when))

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> _Handle:
        return self.call_at(self.world.time + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined] # a process may crash
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.world.note(f"{self.name}: {context.get('message')}: {error!r}")
