"""Multi-host URLs.

asyncpg tries the hosts too, but under one timeout for all of them, which a single unresponsive
host uses up: https://github.com/MagicStack/asyncpg/blob/master/asyncpg/connect_utils.py.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import URL

from ....formatting import counted

__all__ = ["Host", "connect_to_first_available", "hosts_of", "with_explicit_ports"]


class Host(NamedTuple):
    """A host name, or the directory of a socket, and a port."""

    name: str
    port: str


def hosts_of(url: URL) -> list[Host]:
    """Return the hosts in the query of a URL: `?host=a:5432,b:5433`, or `?host=a,b&port=…`.

    Raises:
        ValueError: a port is invalid, or the numbers of hosts and ports differ.
    """
    names = _listed(url, "host")
    ports = _listed(url, "port") or [
        str(os.environ.get("PGPORT") or 5432 if url.port is None else url.port)
    ]
    explicit = [_with_port(name, ports[0]).port for name in names]
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in (*ports, *explicit)):
        raise ValueError("A port in the URL is not a number from 1 to 65535.")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ValueError(
            f"The URL has {counted(len(names), 'host')} but {counted(len(ports), 'port')}: give "
            "one port per host, or a single port for all."
        )
    return [_with_port(name, port) for name, port in zip(names, ports, strict=True)]


def with_explicit_ports(url: URL, hosts: Sequence[Host]) -> URL:
    """Return the URL with a port for each host, as every version of asyncpg accepts it."""
    return url.update_query_dict(
        {
            "host": ",".join(host.name for host in hosts),
            "port": ",".join(host.port for host in hosts),
        }
    )


async def connect_to_first_available(
    hosts: list[Host],
    connect: Callable[[Host], Awaitable[Any]],
    try_next: Callable[[Exception], bool],
) -> Any:
    """Connect to the first available host and try it first next time.

    Args:
        hosts: the hosts; the available one is moved to the front.
        connect: connects to a host.
        try_next: returns whether to try the next host after an error.
    """
    failure: Exception | None = None
    for host in list(hosts):
        try:
            connection = await connect(host)
        except Exception as error:
            if not try_next(error):
                raise
            failure = error
        else:
            hosts.remove(host)
            hosts.insert(0, host)
            return connection
    assert failure is not None  # noqa: S101 - there is at least one host
    raise failure


def _listed(url: URL, name: str) -> list[str]:
    values = url.query.get(name, ())
    return ",".join([values] if isinstance(values, str) else values).split(",") if values else []


def _with_port(name: str, port: str) -> Host:
    if name.startswith("["):  # an IPv6 address in brackets
        address, _, rest = name[1:].partition("]")
        return Host(address, rest.removeprefix(":") or port)
    if name.startswith("/") or name.count(":") > 1:  # a socket, or an IPv6 address without brackets
        return Host(name, port)
    host, _, own_port = name.partition(":")
    return Host(host, own_port or port)
