"""A connection that behaves like one of asyncpg, to a simulated server.

It has what the package and SQLAlchemy use. Preparing a statement takes no round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import asyncpg

from .faults import Faults
from .loop import Loop
from .server import Server
from .sessions import REPEATABLE, Fate, Message, Session
from .sql import columns_of

__all__ = ["Connection", "connect"]


async def connect(
    *_: Any,
    timeout: float = 60.0,  # noqa: ASYNC109 - asyncpg's
    **__: Any,
) -> Connection:
    """Connect the process of the running loop to its server, as `asyncpg.connect` does."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    server, faults = loop.world.server, loop.world.faults
    async with asyncio.timeout(timeout):
        await asyncio.sleep(faults.latency())
        delay_s = faults.connect_delay()
        if delay_s:
            await asyncio.sleep(delay_s)
        if not server.is_up:
            raise ConnectionRefusedError("the server is down")
        return Connection(loop, server, faults)


class Connection:
    """The client's end of a connection, and the network between it and its session."""

    def __init__(self, loop: Loop, server: Server, faults: Faults) -> None:
        self.loop = loop
        self._world = loop.world
        self._server = server
        self._faults = faults
        self._is_closed = False
        self._waiter: asyncio.Future[Any] | None = None
        self._cancelling: asyncio.Future[None] | None = None
        self._pending: Message | None = None
        self._arrives_at = self._returns_at = 0.0  # bytes arrive in their order
        self._unread = 0
        self._session: Session = server.connect(self)

    # -- the network --------------------------------------------------------------------

    def _to_server(self, message: Message | None, delay_s: float = 0.0) -> None:
        self._arrives_at = max(
            self._arrives_at, self._world.time + self._faults.latency() + delay_s
        )
        self._world.later(self._arrives_at - self._world.time, self._session.receive, message)

    def _to_client(self, callback: Callable[..., None], *args: Any, delay_s: float = 0.0) -> None:
        self._returns_at = max(
            self._returns_at, self._world.time + self._faults.latency() + delay_s
        )
        self._world.later(self._returns_at - self._world.time, self._arrive, callback, args)

    def _arrive(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._unread += 1
        self.loop.call_soon(self._read, callback, args)

    def _read(self, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._unread -= 1
        callback(*args)

    def server_closed(self, error: BaseException | None) -> None:
        self._to_client(self._lost, error)

    def hang_up(self) -> None:
        self._to_server(None)

    def _reset(self) -> None:
        """Cut the connection: the client notices at once, the server later."""
        self._to_server(None)
        self._arrive(self._lost, (None,))

    def _lost(self, error: BaseException | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        lost = self._faults.loss_error()
        lost.__cause__ = error  # as asyncpg reports a fatal error of the server
        self._answered(self._pending, None, lost)

    def _answered(self, message: Message | None, answer: Any, error: BaseException | None) -> None:
        if message is None or message is not self._pending:
            return
        self._pending = None
        if self._cancelling is not None:
            self._cancelling.set_result(None)
            self._cancelling = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(answer)
            else:
                waiter.set_exception(error)

    # -- calls --------------------------------------------------------------------------

    async def _call(self, sql: str, arguments: tuple[Any, ...], timeout_s: float | None) -> Any:
        while True:
            if self._is_closed:
                raise asyncpg.InterfaceError("connection is closed")
            if self._cancelling is None:
                break
            await asyncio.shield(self._cancelling)
        if self._pending is not None:
            raise asyncpg.InterfaceError("another operation is in progress")
        fate = self._faults.fate(sql)
        message = Message(sql, arguments, lambda *_: None, fate)
        message.reply = lambda answer, error: self._reply(message, answer, error)
        self._pending = message
        waiter = self._waiter = self.loop.create_future()
        if self._world.trace is not None:
            statement = " ".join(sql.split())[:60]
            self._world.note(f"{self.loop.name} to {self._session.pid}: {statement} {fate or ''}")
        self._send(message, fate)
        timer = None
        if timeout_s is not None:
            timer = self.loop.call_later(timeout_s, self._timed_out, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._request_cancel(message)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _send(self, message: Message, fate: Fate | None) -> None:
        kind = fate.kind if fate else ""
        if kind == "cut_before":
            self._world.later(self._faults.latency(), self._reset)
            return
        self._to_server(message, fate.delay_s if fate and kind == "stall" else 0.0)
        if kind == "cut_sent":
            self._world.later(self._faults.latency(), self._reset)

    def _reply(self, message: Message, answer: Any, error: BaseException | None) -> None:
        fate = message.fate
        kind = fate.kind if fate else ""
        if kind == "cut_answer":
            self._reset()
            return
        delay_s = fate.delay_s if fate and kind == "stall_answer" else 0.0
        self._to_client(self._answered, message, answer, error, delay_s=delay_s)

    def _timed_out(self, waiter: asyncio.Future[Any]) -> None:
        if not waiter.done() and self._pending is not None:
            self._request_cancel(self._pending)
            waiter.set_exception(TimeoutError())

    def _request_cancel(self, message: Message) -> None:
        if self._pending is message and not self._is_closed:
            self._cancelling = self.loop.create_future()
            self._world.later(self._faults.latency(), self._cancel, message)

    def _cancel(self, message: Message) -> None:
        if self._pending is message:  # asyncpg sends nothing else meanwhile
            self._session.cancel()

    # -- asyncpg's methods -----------------------------------------------------------------

    async def execute(
        self,
        sql: str,
        *arguments: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> str:
        tag: str = (await self._call(sql, arguments, timeout))[0]
        return tag

    async def fetch(
        self,
        sql: str,
        *arguments: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[Any]:
        rows: list[Any] = (await self._call(sql, arguments, timeout))[1]
        return rows

    async def fetchrow(
        self,
        sql: str,
        *arguments: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        rows = (await self._call(sql, arguments, timeout))[1]
        return rows[0] if rows else None

    async def fetchval(
        self,
        sql: str,
        *arguments: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any:
        row = await self.fetchrow(sql, *arguments, timeout=timeout)
        return row and row[0]

    async def prepare(self, sql: str, **_: Any) -> _Prepared:
        if self._is_closed:
            raise asyncpg.InterfaceError("connection is closed")
        return _Prepared(self, sql)

    def transaction(self, *, isolation: str | None = None, **_: Any) -> _Transaction:
        return _Transaction(self, isolation)

    async def set_type_codec(self, *_: Any, **__: Any) -> None:
        pass

    def poll(self, timeout_ms: int) -> bool:
        """Return whether something has arrived that the event loop has not read."""
        return self._unread > 0

    def get_server_pid(self) -> int:
        return self._session.pid

    def is_closed(self) -> bool:
        return self._is_closed

    def terminate(self) -> None:
        if not self._is_closed:
            self._world.note(f"{self.loop.name}: terminates its connection to {self._session.pid}")
            self._to_server(None)
            self._lost(None)

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        # In production, this waits for the server and terminates after a second.
        self.terminate()

    # -- of the package's subclass ---------------------------------------------------------

    def terminate_unless_used(self, within_s: float) -> None:
        pass

    def mark_used(self) -> None:
        pass


class _Prepared:
    def __init__(self, connection: Connection, sql: str) -> None:
        self._connection = connection
        self._sql = sql
        self._tag = ""

    def get_attributes(self) -> list[_Attribute]:
        return [_Attribute(name, _Type(25)) for name in columns_of(self._sql)]

    async def fetch(self, *arguments: Any) -> list[Any]:
        self._tag, rows = await self._connection._call(self._sql, arguments, None)
        return list(rows)

    def get_statusmsg(self) -> str:
        return self._tag


class _Attribute(NamedTuple):
    name: str
    type: _Type


class _Type(NamedTuple):
    oid: int


class _Transaction:
    def __init__(self, connection: Connection, isolation: str | None) -> None:
        self._connection = connection
        self._begin = REPEATABLE if isolation == "repeatable_read" else "BEGIN;"

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT;")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK;")
