"""URLs that name several servers, of which one is used."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import make_url

from workflow_store import SqlWorkflowStore, StoreUnavailableError, WorkflowStoreError, open_store
from workflow_store.sql.dialects.postgresql.hosts import Host, hosts_of
from workflow_store.testing import a_run


@pytest.mark.parametrize(
    ("query", "hosts"),
    [
        ("host=a,b", [("a", "5432"), ("b", "5432")]),
        ("host=a:1,b:2", [("a", "1"), ("b", "2")]),
        ("host=a:1&host=b:2", [("a", "1"), ("b", "2")]),
        ("host=a,b&port=1,2", [("a", "1"), ("b", "2")]),
        ("host=a,b:2&port=1", [("a", "1"), ("b", "2")]),
        ("host=/a,/b&port=1", [("/a", "1"), ("/b", "1")]),
        ("host=[::1]:1,[::2],c", [("::1", "1"), ("::2", "5432"), ("c", "5432")]),
        ("host=::1,fe80::2,c&port=1", [("::1", "1"), ("fe80::2", "1"), ("c", "1")]),
        ("host=a", [("a", "5432")]),
        ("", []),
    ],
)
def test_hosts_are_listed_as_libpq_lists_them(query: str, hosts: list[tuple[str, str]]) -> None:
    found = hosts_of(make_url(f"postgresql://me@/db?{query}"))
    assert found == [Host(*host) for host in hosts]


def test_ports_that_do_not_fit_the_hosts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hosts but 2 ports"):
        open_store("postgresql://me@/db?host=a,b,c&port=1,2")


@pytest.mark.parametrize("url", ["/db?host=a:b,c", "/db?host=a:0,c", "h:99999/db", "/db?port=x"])
def test_a_port_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        open_store(f"postgresql://me@{url}")


async def test_a_parameter_that_the_driver_refuses_is_an_error_that_says_so() -> None:
    with pytest.raises(WorkflowStoreError, match="Check the URL parameters"):
        await open_store("postgresql://me@127.0.0.1/db?gsslib=x").open()


@pytest.mark.parametrize("first", ["127.0.0.1:{}", "[::1]:{}", "/no/such/folder", "localhost:{}"])
async def test_a_host_that_refuses_is_followed_by_the_next(first: str, postgres_url: str) -> None:
    """Whichever form they are written in."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        first = first.format(unused.getsockname()[1])
    url = make_url(postgres_url)
    last = url.query.get("host") or f"{url.host}:{url.port or 5432}"
    url = url.set(host=None, port=None).update_query_dict({"host": f"{first},{last}"})
    async with SqlWorkflowStore(url) as store:
        await store.create_run(a_run())
        assert await store.get_run("run") is not None


async def test_where_no_host_answers_the_store_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(StoreUnavailableError):
            await open_store(f"postgresql://me@/db?host=127.0.0.1:{port},[::1]:{port}").open()
