"""A TCP proxy in front of a server, which can stop passing bytes on, or lose an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy import URL, make_url


class Network:
    """Passes bytes on between its own port and a server.

    While it is cut, it accepts bytes, passes none on, and closes nothing, as if a machine lost
    power or a firewall dropped the packets.
    """

    def __init__(self, server: URL) -> None:
        self._server = server
        self._passing = asyncio.Event()
        self._passing.set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._cut_at: bytes | None = None
        self._lose_answer_to: bytes | None = None
        self.answer_lost = asyncio.Event()
        """Set when the server has answered and the client will never know."""
        self._closing = asyncio.Event()

    def lose_answer_to(self, sent: bytes) -> None:
        """Lose the answer to the bytes that contain these; `close_lost` ends the connection."""
        self._lose_answer_to = sent

    def close_lost(self) -> None:
        """Close the connection whose answer was lost."""
        self._closing.set()

    def cut(self) -> None:
        self._passing.clear()

    def cut_at(self, sent: bytes) -> None:
        """Cut the network when the client sends bytes that contain these."""
        self._cut_at = sent

    def restore(self) -> None:
        self._passing.set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._passing.wait()
            theirs, to_them = await self._to_server()
            loses = asyncio.Event()
            await asyncio.gather(
                self._pass_on(reader, to_them, loses), self._pass_back(theirs, writer, loses)
            )
        writer.close()
        self._under_way.discard(task)

    async def end(self) -> None:
        for task in self._under_way.copy():
            task.cancel()
        while self._under_way:
            await asyncio.wait(self._under_way.copy())

    async def _to_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self._server.query.get("host") or self._server.host
        port = self._server.port or 5432
        assert isinstance(host, str)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pass_on(
        self, from_: asyncio.StreamReader, to: asyncio.StreamWriter, loses: asyncio.Event
    ) -> None:
        try:
            while received := await from_.read(65536):
                if self._lose_answer_to is not None and self._lose_answer_to in received:
                    self._lose_answer_to = None
                    loses.set()
                if self._cut_at is not None and self._cut_at in received:
                    self._cut_at = None
                    self.cut()
                await self._passing.wait()
                to.write(received)
                await to.drain()
        finally:
            to.close()

    async def _pass_back(
        self, from_: asyncio.StreamReader, to: asyncio.StreamWriter, loses: asyncio.Event
    ) -> None:
        try:
            while received := await from_.read(65536):
                if loses.is_set():
                    self.answer_lost.set()
                    await self._closing.wait()
                    return
                await self._passing.wait()
                to.write(received)
                await to.drain()
        finally:
            to.close()


@contextlib.asynccontextmanager
async def network(url: str) -> AsyncIterator[tuple[Network, str]]:
    """Yield a network in front of a server, and the server's URL through it."""
    server = make_url(url)
    between = Network(server)
    listener = await asyncio.start_server(between.connect, "127.0.0.1")
    try:
        port = listener.sockets[0].getsockname()[1]
        through = URL.create(
            "postgresql", server.username, server.password, "127.0.0.1", port, server.database
        )
        yield between, through.render_as_string(hide_password=False)
    finally:
        listener.close()
        await between.end()
