"""Database URLs: parsed once, masked in messages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Self
from urllib.parse import parse_qsl, quote, unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import StoreUnavailableError
from .dialects import POSTGRESQL, SQLITE, StoreDialect

__all__ = ["SUPPORTED_URLS", "DatabaseUrl", "default_schema", "default_url"]

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
_MASK = "***"

_REPEATABLE = ("host", "port")


@dataclass(frozen=True)
class DatabaseUrl:
    """A database URL with its dialect.

    Attributes:
        dialect: the dialect of the database.
        url: the URL as SQLAlchemy parsed it.
    """

    dialect: StoreDialect
    url: URL

    @classmethod
    def parse(cls, url: str | URL) -> Self:
        """Parse a URL.

        Raises:
            ValueError: the database is not supported, in which case the message lists the
                supported URLs, or a part of the URL is invalid or would have no effect.
        """
        parsed = _parse(url)
        dialect = _dialect_named(parsed.drivername)
        dialect.check_url(parsed)
        return cls(dialect, parsed)

    @classmethod
    def of_engine(cls, engine: AsyncEngine) -> Self:
        """Return the URL of an engine.

        Raises:
            ValueError: its database or driver is not supported.
        """
        return cls(_dialect_named(f"{engine.dialect.name}+{engine.dialect.driver}"), engine.url)

    @cached_property
    def name(self) -> str:
        """The URL without its secrets and its driver, for messages."""
        url = self.url.set(drivername=self.url.get_backend_name())
        if url.host is not None:
            # An @ in a password that is not percent-encoded moves the rest of it into the host.
            url = url.set(host=url.host.rpartition("@")[2])
        secrets = {name: _MASK for name in _SECRET_PARAMETERS if name in url.query}
        text = url.update_query_dict(secrets).render_as_string(hide_password=True)
        return text.replace(quote(_MASK), _MASK)

    @property
    def is_in_memory(self) -> bool:
        """Whether the database lives in the memory of this process."""
        return self.dialect.is_in_memory(self.url)

    def require_existing(self) -> None:
        """Reject a file that connecting would create: the path may have a typo.

        Raises:
            StoreUnavailableError: the file does not exist.
        """
        if self.dialect.file_is_missing(self.url):
            raise StoreUnavailableError(
                f"{self.name} does not exist: check the path, or create it with "
                "`workflow-store migrate --url URL`."
            )


def _parse(url: str | URL) -> URL:
    """Parse a URL, in which the first `?` begins the parameters.

    SQLAlchemy may take an @ in a parameter for the end of a password that the parameters are a
    part of, and what follows for the host.

    Raises:
        ValueError: the text is not a URL, or not a valid one. The message does not contain it:
            what cannot be parsed cannot be masked.
    """
    text, _, query = url.partition("?") if isinstance(url, str) else (url, "", "")
    try:
        parsed = make_url(text).update_query_pairs(parse_qsl(query, keep_blank_values=True))
        rendered = parsed.render_as_string(hide_password=False)
        is_text = b"\0" not in unquote(rendered).encode()
    except (ArgumentError, ValueError):  # a surrogate is a UnicodeEncodeError
        is_text = False
    if not is_text:
        raise ValueError(f"Not a database URL. Supported URLs: {SUPPORTED_URLS}.")
    for name, values in parsed.normalized_query.items():
        if not all(values) or (len(values) > 1 and name not in _REPEATABLE):
            raise ValueError(
                "A parameter in the URL has no value, or is repeated: write it once, as "
                "`name=value`."
            )
    return parsed


def _dialect_named(name: str) -> StoreDialect:
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise ValueError(f"{name!r} is not supported. Supported URLs: {SUPPORTED_URLS}.")
    return dialect


def default_url() -> str:
    """Return the environment's WORKFLOW_STORE_URL, else a file in the current folder."""
    return os.environ.get("WORKFLOW_STORE_URL") or DEFAULT_URL


def default_schema() -> str | None:
    """Return the environment's WORKFLOW_STORE_SCHEMA, if set."""
    return os.environ.get("WORKFLOW_STORE_SCHEMA") or None
