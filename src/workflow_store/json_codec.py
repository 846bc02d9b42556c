r"""JSON without loss: a Python value to text, and the same value back.

The standard library's writer coerces keys, knows no depth limit and stops at integers of
4,300 digits; its reader takes NaN and shares that limit. The rules here are stricter and
the range is wider:

* strings hold any code point, `\u0000` and lone surrogates too; only a high surrogate
  directly before a low one is refused, since JSON reads that pair as one character
* integers have any size, floats are finite and keep every bit, `1`, `1.0` and `True` stay
  apart, keys are strings and keep their order
* a tuple is written as an array; subclasses of `str`, `int`, `float`, `dict`, `list` and
  `tuple` as what they extend; anything else is refused
* arrays and objects nest up to `MAX_DEPTH` levels

`orjson` does the work wherever it is exact, which is nearly always; the exact writer and
reader below do it where it is not. `encode_stored` begins a text that `orjson` may misread
with a space, which JSON allows and which tells `decode_stored`.

This module knows nothing of storage.
"""

from __future__ import annotations

import json
import marshal
import math
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

import orjson

from .errors import InvalidStateError

__all__ = [
    "MAX_DEPTH",
    "decode",
    "decode_stored",
    "encode",
    "encode_members",
    "encode_stored",
    "has_surrogate_pair",
]

MAX_DEPTH = 128
"""How many arrays and objects may stand inside one another."""

_T = TypeVar("_T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_quote = json.encoder.encode_basestring


def encode(value: Any, *, field: str) -> str:
    """Give the JSON text of a value.

    Args:
        value: the value to write; it is not changed and not kept.
        field: the name that an error gives to the value as a whole.

    Returns:
        The text. It holds no surrogate and no control character, so every database and
        every UTF-8 encoder takes it.

    Raises:
        InvalidStateError: the value is not JSON; the message has the path inside it, such
            as `context.pages[3].score`.
    """
    text = _encode_fast(value)
    return _encode_exactly(value, field) if text is None else text


def encode_members(members: dict[str, Any]) -> str:
    """Give the JSON text of an object, each member of which is a field, as `encode` does.

    All at once where that is exact, which takes two thirds of the time.
    """
    text = _encode_fast(members)
    if text is not None:
        return text
    each = (f"{_quote(name)}:{encode(value, field=name)}" for name, value in members.items())
    return "{" + ",".join(each) + "}"


def encode_stored(value: Any, *, field: str) -> str:
    """Do the same for `decode_stored`, which is faster than `decode`."""
    text = _encode_fast(value)
    return " " + _encode_exactly(value, field) if text is None else text


def _encode_exactly(value: Any, field: str) -> str:
    try:
        return _on_enough_stack(_text, value)
    except _NotJsonError as fault:
        raise InvalidStateError(f"{_path(field, fault.path)}: {fault.reason}") from None


def decode_stored(text: str) -> Any:
    """Give the value of a text that `encode_stored` wrote; its exact inverse.

    Raises:
        ValueError: the text is not JSON.
    """
    if text[:1] != " ":
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # a lone surrogate, or no JSON at all
    return decode(text)


def decode(text: str) -> Any:
    """Give the value of any JSON text, from `encode` or from another program.

    Raises:
        ValueError: the text is not JSON, holds NaN, an infinity or a number that no finite
            float can hold, names a key twice in one object, or nests too deeply to be read.
            The message holds nothing of the text.
    """
    try:
        return _on_enough_stack(_DECODER.decode, text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def has_surrogate_pair(text: str) -> bool:
    """Tell whether a string holds the one thing that JSON cannot keep apart.

    RFC 8259, section 7, writes a character beyond U+FFFF as a pair of surrogates, so a text
    cannot tell the character from two code points that are such a pair.
    """
    return not text.isascii() and _SURROGATE_PAIR.search(text) is not None


# -- the fast way ----------------------------------------------------------------------

_AS_GIVEN = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_CONTAINERS = frozenset({dict, list, tuple})
# A float, with the bit for an object that is referred to or without; an exponent of ones.
_NOT_FINITE = re.compile(rb"[g\xe7].{6}[\xf0-\xff][\x7f\xff]", re.DOTALL)
_ALL_BUT_OPENING_BRACKETS = bytes(set(range(256)) - set(b"[{"))


def _encode_fast(value: Any) -> str | None:
    """Write with orjson; None where its text may not be exact, or the value is refused.

    orjson refuses by itself integers beyond 64 bits, surrogates, keys that are no strings,
    and circles. What else it would write in ways of its own is found in C where that is
    possible, and looked at in Python only where it may be there:

    * an enum, a UUID: `marshal` takes the built-in types alone, and no subclass of them
    * tuples inside tuples by the ten thousand, on which orjson overruns the stack: `marshal`,
      which goes first, takes no more than 2,000 levels
    * what is not finite, as null: `marshal` shows its bytes, or what only looks like them
    * more than `MAX_DEPTH` levels, which take as many brackets
    """
    try:
        plain = marshal.dumps(value)
        text = orjson.dumps(value, option=_AS_GIVEN)
    except (TypeError, ValueError, RecursionError):
        return None
    suspicious = len(text.translate(None, _ALL_BUT_OPENING_BRACKETS)) > MAX_DEPTH or (
        b"null" in text
        and (b"\x7f" in plain or b"\xff" in plain)  # a quarter of what the pattern takes
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


# -- writing exactly -------------------------------------------------------------------


class _NotJsonError(Exception):
    """What is wrong, and where: the path grows from the inside out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str | int] = []


def _text(value: Any) -> str:
    parts: list[str] = []
    _write(value, parts, [])
    return "".join(parts)


def _write(value: Any, parts: list[str], inside: list[Any]) -> None:
    """Append the text of a value; `inside` holds the containers around it."""
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        parts.append(_integer(value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _NotJsonError("NaN and the infinities are not JSON")
        parts.append(float.__repr__(value))
    elif isinstance(value, dict):
        _write_object(value, parts, inside)
    elif isinstance(value, list | tuple):
        _write_array(value, parts, inside)
    else:
        raise _NotJsonError(f"a {type(value).__qualname__} is not JSON")


def _write_object(value: dict[Any, Any], parts: list[str], inside: list[Any]) -> None:
    _enter(value, inside)
    separator = "{"
    for key, item in dict.items(value):
        if not isinstance(key, str):
            raise _NotJsonError(f"a key is of type {type(key).__qualname__}; keys must be strings")
        try:
            parts += (separator, _string(key), ":")
            _write(item, parts, inside)
        except _NotJsonError as fault:
            fault.path.append(str.__str__(key))
            raise
        separator = ","
    parts.append("{}" if separator == "{" else "}")
    inside.pop()


def _write_array(value: list[Any] | tuple[Any, ...], parts: list[str], inside: list[Any]) -> None:
    _enter(value, inside)
    separator = "["
    for index, item in enumerate(value):
        try:
            parts.append(separator)
            _write(item, parts, inside)
        except _NotJsonError as fault:
            fault.path.append(index)
            raise
        separator = ","
    parts.append("[]" if separator == "[" else "]")
    inside.pop()


def _enter(container: Any, inside: list[Any]) -> None:
    if len(inside) == MAX_DEPTH:
        if len({id(outer) for outer in inside}) < MAX_DEPTH:
            raise _NotJsonError("a container holds itself")
        raise _NotJsonError(f"nested deeper than {MAX_DEPTH} levels")
    inside.append(container)


def _string(value: str) -> str:
    text: str = _quote(value)
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    if _SURROGATE_PAIR.search(text):
        raise _NotJsonError(
            "a high and a low surrogate stand side by side, which JSON cannot tell from "
            "the one character that they form"
        )
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _integer(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:
        # sys.set_int_max_str_digits() bounds int and str, not Decimal, which is exact here.
        return str(Decimal(value))


def _path(field: str, path: list[str | int]) -> str:
    """Render a path, shortened where it is long, so that a key never floods a log."""
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


# -- reading exactly -------------------------------------------------------------------


def _read_integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        return int(Decimal(digits))  # see _integer


def _read_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large for a float")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


_DECODER = json.JSONDecoder(
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
    object_pairs_hook=_read_object,
)


def _on_enough_stack(call: Callable[..., _T], *args: Any) -> _T:
    """Call a function that recurses; where the caller's stack is spent, on a fresh one.

    A value of 128 levels must be readable from a caller that is itself close to the
    recursion limit. A new thread starts with an empty stack.
    """
    try:
        return call(*args)
    except RecursionError:
        outcome: list[tuple[bool, Any]] = []

        def run() -> None:
            try:
                outcome.append((True, call(*args)))
            except Exception as error:
                outcome.append((False, error))

        thread = threading.Thread(target=run, name="workflow_store.json_codec")
        thread.start()
        thread.join()
        ((returned, result),) = outcome
        if returned:
            return result  # type: ignore[no-any-return]
        raise result from None
