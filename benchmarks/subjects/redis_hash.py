"""A hash per run on a Redis-compatible server, and one command per step."""

from __future__ import annotations

import json
from typing import Any, Literal

from ..servers import Servers
from ..subject import CRASH, Subject
from ..values import Json

__all__ = ["RedisAlways", "RedisEverysec"]


class RedisAlways(Subject):
    name = "Redis, appendfsync always"
    database = "Redis-compatible"
    appendfsync: Literal["always", "everysec"] = "always"

    async def setup(self, servers: Servers) -> None:
        import redis.asyncio

        socket = servers.redis_socket(self.appendfsync)
        self._client: Any = redis.asyncio.Redis(unix_socket_path=socket)
        answer: Any = await self._client.config_get("append*")
        settings = {_text(name): _text(value) for name, value in answer.items()}
        if (settings["appendonly"], settings["appendfsync"]) != ("yes", self.appendfsync):
            raise RuntimeError(f"the server did not accept the settings: {settings}")

    async def start(self, run: str) -> None:
        pass

    async def write(self, run: str, step: str, value: Json) -> None:
        await self._client.hset(run, step, json.dumps(value))

    async def read(self, run: str) -> int:
        values = await self._client.hvals(run)
        return len([json.loads(value) for value in values])

    async def close(self) -> None:
        await self._client.aclose()


class RedisEverysec(RedisAlways):
    name = "Redis, appendfsync everysec"
    survives = f"{CRASH}, power loss except for the last second"
    appendfsync = "everysec"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
