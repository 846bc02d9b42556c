"""A proxy in front of a PostgreSQL server that cuts, delays, and loses requests and answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from sqlalchemy import make_url

__all__ = ["Fate", "PostgresqlProxy", "Request"]

_PROTOCOL_3 = 196608
_READY_FOR_QUERY = b"Z\0\0\0\5"
_WRITES = re.compile(
    r"\b(INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\S+\s+(AS\s+\S+\s+)?SET)\b", re.IGNORECASE
)


class Request(StrEnum):
    """A kind of request."""

    WRITE = "write"
    COMMIT = "commit"
    OTHER = "other"


class Fate(StrEnum):
    """What happens to a request and to its connection."""

    ANSWER_LOST = "answer lost"
    """The server executes it; the connection is cut in place of its answer."""
    ANSWER_WITHHELD = "answer withheld"
    """The server executes it; its answer never arrives, and nothing else does."""
    NEVER_SENT = "never sent"
    """The connection is cut in place of the request."""
    HALF_SENT = "half sent"
    """The connection is cut in the middle of the request."""
    LATE = "late"
    """The connection is silent for a time; then all that was sent arrives at the server."""


class PostgresqlProxy:
    """Passes bytes on between a port of its own and a server.

    Args:
        url: a database of the server, which listens on a port.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._wire = _Wire(self._url.host or "127.0.0.1", self._url.port or 5432)
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The URL of the database through the proxy."""
        assert self._listener is not None
        port = self._listener.sockets[0].getsockname()[1]
        through = self._url.set(host="127.0.0.1", port=port)
        return through.render_as_string(hide_password=False)

    async def __aenter__(self) -> PostgresqlProxy:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Client(_Session(self._wire)), "127.0.0.1"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()

    def cut(self, count: int | None = None) -> int:
        """Cut connections, chosen at random, or all; return how many."""
        chosen = list(self._wire.sessions)
        if count is not None:
            chosen = random.sample(chosen, min(count, len(chosen)))
        for session in chosen:
            session.abort()
        return len(chosen)

    @contextlib.asynccontextmanager
    async def delayed(self, up_to_s: float) -> AsyncIterator[None]:
        """Delay whatever is sent in either direction while the block runs, in its order."""
        self._wire.delay_s = up_to_s
        try:
            yield
        finally:
            self._wire.delay_s = 0.0

    async def next_request(
        self, kind: Request, fate: Fate, *, for_s: float = 2.0, within_s: float = 10.0
    ) -> bool:
        """Wait for the next request of a kind, and let a fate befall it.

        Args:
            kind: the kind of request.
            fate: what happens to it.
            for_s: how long the connection is silent, if the fate is `LATE` or
                `ANSWER_WITHHELD`; then it is passed on or cut.
            within_s: the longest time to wait for such a request.

        Returns:
            Whether there was such a request. If so, its connection is cut or delivered.
        """
        met: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()

        def arm(session: _Session, request: Request) -> bool:
            if met.done() or request is not kind:
                return False
            session.fate = fate
            met.set_result(session)
            return True

        self._wire.meets = arm
        try:
            async with asyncio.timeout(within_s):
                session = await met
        except TimeoutError:
            return False
        finally:
            self._wire.meets = _meets_none
        if fate in {Fate.LATE, Fate.ANSWER_WITHHELD}:
            await asyncio.sleep(for_s)
            session.resume() if fate is Fate.LATE else session.abort()
        else:
            async with asyncio.timeout(within_s):
                await session.closed.wait()
        return True


def _meets_none(session: _Session, request: Request) -> bool:
    return False


@dataclass(slots=True)
class _Wire:
    """What the sessions share: the server, and what happens to them next."""

    host: str
    port: int
    sessions: set[_Session] = field(default_factory=set)
    delay_s: float = 0.0
    meets: Callable[[_Session, Request], bool] = _meets_none


class _Session:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self.fate: Fate | None = None
        self.closed = asyncio.Event()
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self._held: list[bytes] = []
        self._parser = _Parser()
        self._client_left = False
        self._send_at = 0.0

    def begin(self, client: asyncio.Transport) -> None:
        self.client = client
        self._wire.sessions.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(
                lambda: _Server(self), self._wire.host, self._wire.port
            )
        except OSError:
            self.abort()
            return
        self.server = transport
        if self.client is None:
            transport.abort()
            return
        self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, []
        for data in held:
            self.sent(data)
        if self._client_left and self.server is not None:
            self.server.close()

    def sent(self, data: bytes) -> None:
        """Pass on what the client sent."""
        if self.server is None or self.fate is Fate.LATE:
            self._held.append(data)
            return
        for request in self._parser.requests(data):
            if self.fate is None and self._wire.meets(self, request):
                break
        match self.fate:
            case Fate.LATE:
                self._held.append(data)
            case Fate.NEVER_SENT:
                self.abort()
            case Fate.HALF_SENT:
                self.server.write(data[: len(data) // 2])
                self.server.close()  # after what was written has been sent
                self._close_client()
            case _:
                self._later(self.server, data)

    def answered(self, data: bytes) -> None:
        """Pass on what the server sent."""
        if self.fate is None:
            if self.client is not None:
                self._later(self.client, data)
        elif self.fate is Fate.ANSWER_LOST and data[-6:-1] == _READY_FOR_QUERY:
            self.abort()

    def _later(self, to: asyncio.Transport, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if not self._wire.delay_s and loop.time() >= self._send_at:
            to.write(data)
            return
        delay_s = random.uniform(0, self._wire.delay_s)
        self._send_at = max(self._send_at, loop.time() + delay_s)
        loop.call_at(self._send_at, to.write, data)  # which a closed one ignores

    def resume(self) -> None:
        """Deliver what was held."""
        self.fate = None
        self._flush()

    def client_left(self) -> None:
        self.client = None
        self._client_left = True
        if self.server is not None and self.fate is not Fate.LATE:
            self.server.close()

    def server_left(self) -> None:
        self.server = None
        self._close_client()
        self._end()

    def _close_client(self) -> None:
        if self.client is not None:
            self.client.abort()

    def abort(self) -> None:
        """Cut both connections."""
        if self.server is not None:
            self.server.abort()
        self._close_client()
        self._end()

    def _end(self) -> None:
        self._wire.sessions.discard(self)
        self.closed.set()


class _Client(asyncio.Protocol):
    def __init__(self, session: _Session) -> None:
        self._session = session
        self.data_received = session.sent  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._session.begin(cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.client_left()


class _Server(asyncio.Protocol):
    def __init__(self, session: _Session) -> None:
        self._session = session
        self.data_received = session.answered  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.server_left()


class _Parser:
    """Finds the requests in what a client sends.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._kinds: dict[bytes, Request] = {}
        self._kind = Request.OTHER

    def requests(self, data: bytes) -> list[Request]:
        """Return the kinds of the requests that are complete with these bytes."""
        found = []
        data = self._rest + data
        at = 0
        while len(data) - at >= 5:
            begin = at + self._started
            end = begin + int.from_bytes(data[begin : begin + 4], "big")
            if len(data) < end:
                break
            if self._started:
                kind = self._message(data[at : at + 1], data[begin + 4 : end])
                found += [] if kind is None else [kind]
            else:
                self._started = int.from_bytes(data[at + 4 : at + 8], "big") == _PROTOCOL_3
            at = end
        self._rest = data[at:]
        return found

    def _message(self, type_: bytes, body: bytes) -> Request | None:
        match type_:
            case b"P":
                name, sql, *_ = body.split(b"\0", 2)
                self._kinds[name] = _kind(sql)
            case b"B":
                _, name, *_ = body.split(b"\0", 2)
                self._kind = self._kinds.get(name, Request.OTHER)
            case b"Q":
                return _kind(body)
            case b"S":
                kind, self._kind = self._kind, Request.OTHER
                return kind
        return None


def _kind(sql: bytes) -> Request:
    text = sql.decode(errors="replace")
    if text.lstrip().upper().startswith("COMMIT"):
        return Request.COMMIT
    return Request.WRITE if _WRITES.search(text) else Request.OTHER
