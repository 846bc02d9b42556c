"""The faults of a run: which there are, and what each does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from .. import faults
from ..faults import Fate, Request
from .environments import Postgresql, Sqlite

if TYPE_CHECKING:
    from .round import Round

__all__ = ["FAULTS", "deck"]

Fault: TypeAlias = "Callable[[Round, random.Random], Awaitable[bool]]"
"""Returns whether it happened."""


# -- processes ------------------------------------------------------------------------------


async def _writer_killed(round_: Round, rng: random.Random) -> bool:
    place = rng.randrange(len(round_.workers))
    await round_.workers[place].kill()
    await round_.replace(place)
    return True


async def _writer_paused(round_: Round, rng: random.Random) -> bool:
    worker = rng.choice(round_.workers)
    async with faults.paused(worker.pid):
        await asyncio.sleep(rng.uniform(0.5, 3.0))
    return True


# -- PostgreSQL -----------------------------------------------------------------------------


def _postgresql(round_: Round) -> Postgresql:
    assert isinstance(round_.environment, Postgresql)
    return round_.environment


async def _backend_paused(round_: Round, rng: random.Random) -> bool:
    url = _postgresql(round_).direct_url
    # One that is idle executes what it is sent later when it goes on.
    found = await (faults.when_busy(url) if rng.random() < 0.3 else faults.sessions(url))
    chosen = rng.sample(found, min(len(found), rng.choice([1, 2, 4, 8, 16])))
    async with faults.paused(*chosen) as paused:
        await asyncio.sleep(rng.uniform(2.2, 5.0))  # longer than the timeout of a statement
    return bool(paused)


async def _backend_terminated(round_: Round, rng: random.Random) -> bool:
    url = _postgresql(round_).direct_url
    found = await (faults.when_busy(url) if rng.random() < 0.7 else faults.sessions(url))
    await faults.terminate(*rng.sample(found, rng.randint(1, len(found)) if found else 0))
    return bool(found)


async def _server_restarted(round_: Round, rng: random.Random) -> bool:
    server = _postgresql(round_).server
    await server.stop(rng.choice(["immediate", "fast"]))
    await asyncio.sleep(rng.choice([0.0, 0.2, 2.0]))
    await server.start()
    return True


async def _server_killed(round_: Round, rng: random.Random) -> bool:
    server = _postgresql(round_).server
    await server.kill()
    await server.start()
    return True


def _request(request: Request, fate: Fate) -> Fault:
    async def fault(round_: Round, rng: random.Random) -> bool:
        proxy = _postgresql(round_).proxy
        return await proxy.next_request(request, fate, for_s=rng.uniform(1.2, 3.5))

    return fault


async def _connections_cut(round_: Round, rng: random.Random) -> bool:
    return _postgresql(round_).proxy.cut(rng.choice([1, 2, None])) > 0


async def _network_slow(round_: Round, rng: random.Random) -> bool:
    async with _postgresql(round_).proxy.delayed(rng.choice([0.02, 0.2, 2.0])):
        await asyncio.sleep(rng.uniform(0.5, 2.0))
    return True


async def _pooler_restarted(round_: Round, rng: random.Random) -> bool:
    pooler = _postgresql(round_).pooler
    if pooler is None:
        return False
    await pooler.kill()
    await asyncio.sleep(rng.choice([0.0, 0.2, 1.0]))
    await pooler.start()
    return True


async def _tables_locked(round_: Round, rng: random.Random) -> bool:
    async with faults.locked_tables(_postgresql(round_).direct_url):
        await asyncio.sleep(rng.uniform(0.5, 2.5))
    return True


# -- SQLite ---------------------------------------------------------------------------------


def _sqlite(round_: Round) -> Sqlite:
    assert isinstance(round_.environment, Sqlite)
    return round_.environment


async def _lock_holder(round_: Round) -> int | None:
    """Return a writer that holds the lock of the file, as soon as there is one."""
    pids = {worker.pid for worker in round_.workers}
    for _ in range(2_000):
        for pid in faults.lock_holders(_sqlite(round_).file):
            if pid in pids:
                return pid
        await asyncio.sleep(0)
    return None


async def _lock_holder_paused(round_: Round, rng: random.Random) -> bool:
    for _ in range(50):
        pid = await _lock_holder(round_)
        if pid is None:
            return False
        async with faults.paused(pid):
            await asyncio.sleep(0.01)  # until the signal has arrived
            if pid in faults.lock_holders(_sqlite(round_).file):
                await asyncio.sleep(rng.uniform(0.5, 3.5))
                return True
    return False


async def _lock_holder_killed(round_: Round, rng: random.Random) -> bool:
    pid = await _lock_holder(round_)
    if pid is None:
        return False
    faults.kill(pid)
    place = next(place for place, worker in enumerate(round_.workers) if worker.pid == pid)
    await round_.workers[place].kill()
    await round_.replace(place)
    return True


async def _file_locked(round_: Round, rng: random.Random) -> bool:
    async with faults.locked_file(_sqlite(round_).file):
        await asyncio.sleep(rng.uniform(0.1, 3.0))
    return True


FAULTS: Final[dict[str, dict[str, tuple[int, Fault]]]] = {
    "postgresql": {
        "backend paused": (17, _backend_paused),
        "backend terminated": (10, _backend_terminated),
        "answer of a write lost": (10, _request(Request.WRITE, Fate.ANSWER_LOST)),
        "answer of a COMMIT lost": (7, _request(Request.COMMIT, Fate.ANSWER_LOST)),
        "answer withheld": (4, _request(Request.WRITE, Fate.ANSWER_WITHHELD)),
        "request late": (5, _request(Request.WRITE, Fate.LATE)),
        "COMMIT late": (4, _request(Request.COMMIT, Fate.LATE)),
        "request half sent": (3, _request(Request.WRITE, Fate.HALF_SENT)),
        "request never sent": (3, _request(Request.WRITE, Fate.NEVER_SENT)),
        "connections cut": (5, _connections_cut),
        "network slow": (4, _network_slow),
        "server restarted": (8, _server_restarted),
        "server killed": (4, _server_killed),
        "pooler restarted": (4, _pooler_restarted),
        "tables locked": (3, _tables_locked),
        "writer killed": (5, _writer_killed),
        "writer paused": (4, _writer_paused),
    },
    "sqlite": {
        "writer killed": (20, _writer_killed),
        "writer killed that holds the lock": (20, _lock_holder_killed),
        "writer paused": (15, _writer_paused),
        "writer paused that holds the lock": (25, _lock_holder_paused),
        "file locked": (20, _file_locked),
    },
}
"""The faults of each database, with their shares."""


def deck(rng: random.Random, database: str, only: str | None) -> Iterator[tuple[str, Fault]]:
    """Yield faults without end, in a random order, each according to its share."""
    while True:
        cards = [
            (name, fault)
            for name, (share, fault) in FAULTS[database].items()
            if only is None or only in name
            for _ in range(share)
        ]
        rng.shuffle(cards)
        yield from cards
