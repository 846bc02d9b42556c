r"""JSON without loss: from a Python value to text, and back to an equal value.

The standard library's encoder coerces keys and has no depth limit, its decoder accepts NaN, and
how long an integer may be is a setting of the process. The rules here are stricter:

* strings hold any code point, including `\u0000` and lone surrogates; only a high surrogate
  directly before a low one is rejected, since JSON reads that pair as one character
* integers have up to `MAX_DIGITS` digits, floats are finite and keep every bit, `1`, `1.0` and
  `True` stay distinct, keys are strings and keep their order
* tuples are encoded as arrays, and subclasses of `str`, `int`, `float`, `dict`, `list` and
  `tuple` as their base, by its own methods: no code of a subclass runs. Any other type is rejected
* arrays and objects nest up to `MAX_DEPTH` levels

`orjson` (https://github.com/ijl/orjson) does the work where it is exact, which is nearly always;
the exact encoder and decoder below do the rest. `encode_stored` prefixes a text that `orjson` may
misread with a space, which JSON allows and `decode_stored` checks.

This module knows nothing of storage.
"""

from __future__ import annotations

import json
import marshal
import math
import re
from datetime import date, time
from decimal import Decimal
from enum import Enum
from itertools import accumulate
from typing import Any, NoReturn
from uuid import UUID

import orjson

from .errors import InvalidStateError

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "decode",
    "decode_stored",
    "encode",
    "encode_members",
    "encode_stored",
    "has_surrogate_pair",
    "plain_str",
]

MAX_DEPTH = 128
"""The maximum nesting of arrays and objects."""

MAX_DIGITS = 4_300
"""The maximum number of digits of an integer, whatever the limit of the process is.

It is the default limit of CPython, whose conversions take quadratic time:
https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
"""

_FIRST_TOO_LONG = 10**MAX_DIGITS
_TOO_LONG = f"an integer has more than {MAX_DIGITS:,} digits"

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_quote = json.encoder.encode_basestring


def encode(value: Any, *, field: str) -> str:
    """Return the JSON text of a value.

    Args:
        value: the value. It is neither changed nor kept.
        field: the name of the value in error messages.

    Returns:
        The text, without surrogates and control characters, so that every database and every
        UTF-8 encoder accepts it.

    Raises:
        InvalidStateError: the value is not JSON. The message contains the path inside it, such
            as `context.pages[3].score`, and how to convert common types.
    """
    text = _encode_fast(value)
    return _encode_exactly(value, field) if text is None else text


def encode_members(members: dict[str, Any]) -> str:
    """Return the JSON text of an object; errors name its members as fields.

    Encoding the object as a whole takes two thirds of the time of its members one by one.
    """
    text = _encode_fast(members)
    if text is not None:
        return text
    parts = (f"{_quote(name)}:{encode(value, field=name)}" for name, value in members.items())
    return "{" + ",".join(parts) + "}"


def encode_stored(value: Any, *, field: str) -> str:
    """Return the text of a value for `decode_stored`, which is faster than `decode`.

    Raises:
        InvalidStateError: as `encode`.
    """
    text = _encode_fast(value)
    return " " + _encode_exactly(value, field) if text is None else text


def _encode_exactly(value: Any, field: str) -> str:
    parts: list[str] = []
    try:
        _write(value, parts, [])
    except _NotJsonError as error:
        raise InvalidStateError(f"{_path(field, error.path)}: {error.reason}") from None
    return "".join(parts)


def decode_stored(text: str) -> Any:
    """Return the value of a text from `encode_stored`, its exact inverse.

    Raises:
        ValueError: the text is not JSON, or not one that `encode_stored` returns: it nests too
            deeply, or an integer is too long.
    """
    if text[:1] != " ":
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # a lone surrogate, or not JSON
    try:
        return _decode_exactly(text)
    except RecursionError:
        if _depth(text) <= MAX_DEPTH:
            raise  # the caller's stack is nearly exhausted
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


def _depth(text: str) -> int:
    brackets = re.findall(r"[][{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def decode(text: str) -> Any:
    """Return the value of any JSON text, from `encode` or from another program.

    Raises:
        ValueError: the text is not JSON, contains NaN, an infinity, a number beyond the range
            of floats, an integer of more than `MAX_DIGITS` digits or a duplicate key, or nests
            too deeply. The message contains nothing of the text.
    """
    try:
        return _decode_exactly(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def _decode_exactly(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos}") from None


def plain_str(value: Any) -> str | None:
    """Return a string as a plain `str`, or None for any other type.

    No code of a subclass runs. `isinstance` would ask for an attribute, `__class__`.
    """
    return str.__str__(value) if issubclass(type(value), str) else None


def has_surrogate_pair(text: str) -> bool:
    """Return whether a string has a high surrogate directly before a low one.

    JSON writes a character beyond U+FFFF as such a pair, so it cannot distinguish the two:
    https://www.rfc-editor.org/rfc/rfc8259#section-7
    """
    return not text.isascii() and _SURROGATE_PAIR.search(text) is not None


# -- fast encoding ---------------------------------------------------------------------

_PASSTHROUGH = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_CONTAINERS = frozenset({dict, list, tuple})
# The type code of a float, with or without the reference flag, and an exponent of only ones.
_NOT_FINITE = re.compile(rb"[g\xe7].{6}[\xf0-\xff][\x7f\xff]", re.DOTALL)
_ALL_BUT_OPENING_BRACKETS = bytes(set(range(256)) - set(b"[{"))


def _encode_fast(value: Any) -> str | None:
    """Return the text by orjson, or None if it may not be exact or the value is rejected.

    orjson itself rejects integers beyond 64 bits, surrogates, keys other than strings, and
    cycles. What else it would encode in its own way is detected in C where possible: 1 KB then
    takes about 11 µs, and 21 µs with a walk over the value in Python.

    * enums, UUIDs: `marshal` accepts only the built-in types, no subclasses
    * tuples nested by the ten thousand, with which orjson overflows the C stack: `marshal`
      runs first and accepts at most 2,000 levels
    * NaN and the infinities, which become null: `marshal` shows their bytes, or bytes that
      only look like them
    * more than `MAX_DEPTH` levels: they need as many brackets
    """
    try:
        plain = marshal.dumps(value)
        text = orjson.dumps(value, option=_PASSTHROUGH)
    except (TypeError, ValueError):
        return None
    suspicious = len(text.translate(None, _ALL_BUT_OPENING_BRACKETS)) > MAX_DEPTH or (
        b"null" in text
        and (b"\x7f" in plain or b"\xff" in plain)  # a quarter of the pattern's time
        and _NOT_FINITE.search(plain)
    )
    if suspicious and not _is_shallow_and_finite(value):
        return None
    return text.decode()


def _is_shallow_and_finite(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        types = set(map(type, level))
        if float in types and not all(
            map(math.isfinite, [item for item in level if type(item) is float])
        ):
            return False
        if _CONTAINERS.isdisjoint(types):
            return True
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                inner += item.values()
            elif kind is list or kind is tuple:
                inner += item
        level = inner
    return False


# -- exact encoding --------------------------------------------------------------------

_CONVERSIONS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((UUID, Decimal), "str(...)"),
    ((date, time), ".isoformat()"),
    ((set, frozenset), "sorted(...)"),
    ((bytes, bytearray), "base64.b64encode(...).decode()"),
    (Enum, ".value"),
)


class _NotJsonError(Exception):
    """A value is not JSON. Its path grows from the inside out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str | int] = []


def _not_json(value: Any) -> _NotJsonError:
    reason = f"{type(value).__qualname__} is not a JSON type"
    if hasattr(type(value), "model_dump"):
        return _NotJsonError(f'{reason}; convert it with .model_dump(mode="json")')
    for types, conversion in _CONVERSIONS:
        if issubclass(type(value), types):
            return _NotJsonError(f"{reason}; convert it with {conversion}")
    return _NotJsonError(f"{reason}; use dict, list, str, int, float, bool or None")


def _write(value: Any, parts: list[str], outer: list[Any]) -> None:
    """Append the text of a value; `outer` are the containers around it.

    `isinstance` would run code of a subclass, as in `plain_str`.
    """
    kind = type(value)
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif issubclass(kind, str):
        parts.append(_string(value))
    elif issubclass(kind, int):
        parts.append(_integer(int.__int__(value)))
    elif issubclass(kind, float):
        if not math.isfinite(value):
            raise _NotJsonError("NaN and infinity are not valid JSON; use None or a string")
        parts.append(float.__repr__(value))
    elif issubclass(kind, dict):
        _write_object(value, parts, outer)
    elif issubclass(kind, list | tuple):
        _write_array(value, parts, outer)
    else:
        raise _not_json(value)


def _write_object(value: dict[Any, Any], parts: list[str], outer: list[Any]) -> None:
    _enter(value, outer)
    separator = "{"
    for key, item in dict.items(value):
        if not issubclass(type(key), str):
            raise _NotJsonError(f"keys must be strings, not {type(key).__qualname__}")
        try:
            parts += (separator, _string(key), ":")
            _write(item, parts, outer)
        except _NotJsonError as error:
            error.path.append(str.__str__(key))
            raise
        separator = ","
    parts.append("{}" if separator == "{" else "}")
    outer.pop()


def _write_array(value: list[Any] | tuple[Any, ...], parts: list[str], outer: list[Any]) -> None:
    _enter(value, outer)
    separator = "["
    base: Any = list if issubclass(type(value), list) else tuple
    for index, item in enumerate(base.__iter__(value)):
        try:
            parts.append(separator)
            _write(item, parts, outer)
        except _NotJsonError as error:
            error.path.append(index)
            raise
        separator = ","
    parts.append("[]" if separator == "[" else "]")
    outer.pop()


def _enter(container: Any, outer: list[Any]) -> None:
    if len(outer) == MAX_DEPTH:
        if len(set(map(id, outer))) < MAX_DEPTH:
            raise _NotJsonError("a container contains itself")
        raise _NotJsonError(f"nested deeper than {MAX_DEPTH} levels")
    outer.append(container)


def _string(value: str) -> str:
    text: str = _quote(value)
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    if _SURROGATE_PAIR.search(text):
        raise _NotJsonError(
            "a high surrogate is followed by a low surrogate: JSON cannot distinguish this pair "
            "from the single character it encodes; use that character instead"
        )
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _integer(value: int) -> str:
    if not -_FIRST_TOO_LONG < value < _FIRST_TOO_LONG:  # compares sizes first, in constant time
        raise _NotJsonError(f"{_TOO_LONG}; use a string")
    try:
        return int.__repr__(value)
    except ValueError:  # the limit of the process is lower; Decimal is exact and has none
        return str(Decimal(value))


def _path(field: str, path: list[str | int]) -> str:
    """Return a path as text, shortened so that long keys do not flood a log."""
    rendered = field
    for part in reversed(path):
        if len(rendered) > 200:
            return rendered + "…"
        if isinstance(part, int):
            rendered += f"[{part}]"
        elif part.isidentifier() and len(part) <= 60:
            rendered += f".{part}"
        else:
            rendered += f"[{part[:60]!a}{'…' if len(part) > 60 else ''}]"
    return rendered


# -- exact decoding --------------------------------------------------------------------


def _read_integer(digits: str) -> int:
    if len(digits) - digits.startswith("-") > MAX_DIGITS:  # JSON has no leading zeros
        raise ValueError(_TOO_LONG)
    try:
        return int(digits)
    except ValueError:
        return int(Decimal(digits))  # as in _integer


def _read_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large for a float")
    return value


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return value


_DECODER = json.JSONDecoder(
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_reject_constant,
    object_pairs_hook=_read_object,
)
