"""From a URL to an engine."""

from __future__ import annotations

import os

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from .dialects import POSTGRESQL, SQLITE, StoreDialect

__all__ = ["SUPPORTED_URLS", "default_schema", "default_url", "dialect_of", "masked", "parse_url"]

DEFAULT_URL = "sqlite:///workflow_store.db"

SUPPORTED_URLS = (
    "memory://, sqlite:///file.db, sqlite:////absolute/file.db, sqlite:// (in memory), "
    "postgresql://user:password@host/database and postgres://…, "
    "with or without +aiosqlite or +asyncpg"
)

_DIALECTS: dict[str, StoreDialect] = {
    "sqlite": SQLITE,
    "sqlite+aiosqlite": SQLITE,
    "postgresql": POSTGRESQL,
    "postgresql+asyncpg": POSTGRESQL,
    "postgres": POSTGRESQL,
    "postgres+asyncpg": POSTGRESQL,
}

_SECRET_PARAMETERS = ("password", "sslpassword")


def parse_url(url: str | URL) -> tuple[StoreDialect, URL]:
    """Tell which database a URL names.

    Raises:
        ValueError: it names none that is supported; the message lists those that are.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text is not shown: what cannot be parsed cannot be masked.
        raise ValueError(f"Not a database URL. Supported are {SUPPORTED_URLS}.") from None
    dialect = _dialect_named(parsed.drivername)
    dialect.check_url(parsed)
    return dialect, parsed


def dialect_of(engine: AsyncEngine) -> StoreDialect:
    """Tell which database an engine talks to.

    Raises:
        ValueError: one that is not supported.
    """
    return _dialect_named(f"{engine.dialect.name}+{engine.dialect.driver}")


def _dialect_named(name: str) -> StoreDialect:
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise ValueError(f"{name!r} is not supported. Supported are {SUPPORTED_URLS}.")
    return dialect


def masked(url: URL) -> str:
    """Render a URL without its secrets and its driver, for messages."""
    url = url.set(drivername=url.get_backend_name())
    if url.host is not None:
        # An @ in a password that is not encoded moves the rest of it into the host.
        url = url.set(host=url.host.rpartition("@")[2])
    secrets = {name: "***" for name in _SECRET_PARAMETERS if name in url.query}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def default_url() -> str:
    """Give the environment's WORKFLOW_STORE_URL, else a file in the current folder."""
    return os.environ.get("WORKFLOW_STORE_URL") or DEFAULT_URL


def default_schema() -> str | None:
    """Give the environment's WORKFLOW_STORE_SCHEMA, None where there is none."""
    return os.environ.get("WORKFLOW_STORE_SCHEMA") or None
