"""Several servers in one URL, of which one takes writes at a time."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import URL

__all__ = ["Host", "connect_to_first_available", "hosts_of", "with_explicit_ports"]


class Host(NamedTuple):
    """A server, or the folder of its socket, and its port."""

    name: str
    port: str


def hosts_of(url: URL) -> list[Host]:
    """Give the hosts in the query of a URL: `?host=a:5432,b:5433`, or `?host=a,b&port=…`.

    Raises:
        ValueError: the ports are none, or do not fit the hosts.
    """
    names = _listed(url, "host")
    ports = _listed(url, "port") or [str(url.port or os.environ.get("PGPORT") or 5432)]
    of_names = [_with_port(name, ports[0]).port for name in names]
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in (*ports, *of_names)):
        raise ValueError("The URL has a port that is not a number from 1 to 65535.")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise ValueError(f"The URL has {len(names)} hosts and {len(ports)} ports.")
    return [_with_port(name, port) for name, port in zip(names, ports, strict=True)]


def with_explicit_ports(url: URL, hosts: Sequence[Host]) -> URL:
    """Give the URL as SQLAlchemy and every version of the driver take it: a port to each host."""
    return url.update_query_dict(
        {
            "host": ",".join(host.name for host in hosts),
            "port": ",".join(host.port for host in hosts),
        }
    )


async def connect_to_first_available(
    hosts: list[Host],
    connect: Callable[[Host], Awaitable[Any]],
    goes_on: Callable[[Exception], bool],
) -> Any:
    """Connect to the first of several hosts that can be used, which is asked first from then on.

    The driver does the same by itself, but within one limit of time for all of them, which a
    machine that went without a word uses up alone.

    Args:
        hosts: the hosts; their order changes.
        connect: connects to one of them.
        goes_on: whether the next one is to be asked after an error.
    """
    failure: Exception | None = None
    for host in list(hosts):
        try:
            connection = await connect(host)
        except Exception as error:
            if not goes_on(error):
                raise
            failure = error
        else:
            hosts.remove(host)
            hosts.insert(0, host)
            return connection
    assert failure is not None  # noqa: S101 - there is a host
    raise failure


def _listed(url: URL, name: str) -> list[str]:
    given = url.query.get(name, ())
    return ",".join([given] if isinstance(given, str) else given).split(",") if given else []


def _with_port(name: str, port: str) -> Host:
    if name.startswith("["):  # an address of IPv6
        address, _, rest = name[1:].partition("]")
        return Host(address, rest.removeprefix(":") or port)
    if name.startswith("/") or name.count(":") > 1:  # a socket, or such an address alone
        return Host(name, port)
    host, _, own = name.partition(":")
    return Host(host, own or port)
