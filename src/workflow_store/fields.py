"""The rules of single fields: identifiers, texts and times.

No code of a subclass of `str` or `dict` runs: see `json_codec.plain_str`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, PlainValidator, StrictStr

from . import json_codec

__all__ = [
    "MAX_IDENTIFIER_BYTES", "ErrorText", "Identifier", "JsonObject", "Time", "valid_identifier",
    "valid_text", "valid_time",
]  # fmt: skip

MAX_IDENTIFIER_BYTES = 1024
"""Two of them, the key of a step, fit into an index entry of PostgreSQL, at most 2,704 bytes."""


def valid_identifier(value: Any) -> str:
    """Return an identifier as a plain `str`.

    Raises:
        ValueError: the value breaks the rules for identifiers.
    """
    text = value if type(value) is str else valid_text(value)  # a call per write less
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("an identifier must not contain surrogates") from None
    if not 0 < size <= MAX_IDENTIFIER_BYTES:
        raise ValueError(
            f"an identifier must be 1 to {MAX_IDENTIFIER_BYTES:,} bytes of UTF-8, not {size:,}"
        )
    if "\0" in text:
        raise ValueError("an identifier must not contain NUL")
    return text


def valid_time(value: Any) -> datetime:
    """Return an aware datetime as a plain one in UTC.

    Raises:
        ValueError: the value is not an aware datetime, or UTC cannot represent it.
    """
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    try:
        if not issubclass(type(value), datetime) or value.utcoffset() is None:
            raise TypeError  # noqa: TRY301 - as the errors of a caller's tzinfo
        utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range when converted to UTC") from None
    except Exception:
        raise ValueError("must be an aware datetime, such as datetime.now(UTC)") from None
    # A subclass may have more than a store can keep, such as nanoseconds.
    return datetime(
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC
    )  # fmt: skip


def valid_text(value: Any) -> str:
    """Return a string as a plain `str`.

    Raises:
        ValueError: the value is not a string.
    """
    text = json_codec.plain_str(value)
    if text is None:
        raise ValueError(f"must be a string, not {type(value).__qualname__}")
    return text


def _error_text(value: Any) -> str:
    text = valid_text(value)
    if json_codec.has_surrogate_pair(text):
        raise ValueError("must not contain a high surrogate followed by a low surrogate")
    return text


# https://www.rfc-editor.org/rfc/rfc3339#section-5.6
# datetime.fromisoformat() also accepts week dates and times without an offset.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _time(value: Any) -> datetime:
    text = json_codec.plain_str(value)
    if text is None:
        return valid_time(value)
    if _RFC_3339.fullmatch(text) is None:
        raise ValueError("a time must be in RFC 3339 format, such as 2026-01-31T23:59:59Z")
    return valid_time(datetime.fromisoformat(text.upper()))  # truncates nanoseconds


def _json_object(value: Any) -> dict[str, Any]:
    if not issubclass(type(value), dict):
        raise ValueError("must be a JSON object (a dict in Python)")  # noqa: TRY004 - pydantic collects ValueError
    return value  # type: ignore[no-any-return]


# The validators come first: pydantic's own would run code of a subclass of `str`.

Identifier = Annotated[StrictStr, BeforeValidator(valid_identifier)]
"""A string of 1 to 1,024 bytes in UTF-8 without NUL and surrogates."""

ErrorText = Annotated[StrictStr, BeforeValidator(_error_text)]
"""Any string, except one with a high surrogate directly before a low one."""

Time = Annotated[AwareDatetime, BeforeValidator(_time)]
"""An aware `datetime` or RFC 3339 string, converted to UTC and truncated to microseconds."""

JsonObject = Annotated[dict[str, Any], PlainValidator(_json_object)]
"""A dict with string keys and JSON values."""
