r"""Escapes characters of a text that are invisible, or that act on what displays them.

An id, a result or an error may contain characters that control a terminal (escape sequences, a
carriage return), reorder or hide text (bidi overrides, zero-width characters), or cannot be
encoded (lone surrogates). All of them are shown as escapes, such as `\x1b` or `\u202e`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..state import JsonValue

__all__ = ["escape_invisible", "escape_unencodable", "pretty_json"]

_NOT_ASCII = re.compile(r"[^ -~]+")
_NOT_ASCII_IN_LINES = re.compile(r"[^ -~\n\t]+")

# Characters that `str.isprintable` accepts and that are invisible nevertheless: fillers, grapheme
# joiners, variation selectors. They have the property Default_Ignorable_Code_Point:
# https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escape_invisible(text: str, *, lines: bool = False) -> str:
    r"""Return the text with escapes for all characters that are invisible or act on a display.

    These are the characters that `str.isprintable` rejects (control and format characters,
    separators other than the space, surrogates, private and unassigned code points), and
    ignorable letters and marks. The escapes are Python's: `\n`, `\x1b`, `\u202e`, `\U000e0041`.
    Backslashes are not escaped, so a text that spells an escape looks like one.

    Args:
        text: any string.
        lines: keep newlines and tabs, for a text of several lines.

    Returns:
        A text that can be encoded as UTF-8; on one line, unless `lines` is true.
    """
    return _escape(text, _NOT_ASCII_IN_LINES if lines else _NOT_ASCII, _python_escape)


def pretty_json(value: JsonValue) -> str:
    r"""Return the JSON of a value, indented by two spaces, without invisible characters.

    The escapes are JSON's (`\u001b`, a surrogate pair beyond U+FFFF), so the text is still the
    JSON of the same value.

    Args:
        value: a value that was read from a store.
    """
    from .. import json_codec

    text = _indent(json_codec.encode(value, field="value"))
    return _escape(text, _NOT_ASCII_IN_LINES, _json_escape)


def escape_unencodable(text: str, encoding: str) -> str:
    """Return the text with escapes for what an encoding lacks; ASCII if it is unknown."""
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode()


def _escape(text: str, suspects: re.Pattern[str], escape: Callable[[str], str]) -> str:
    def replace(match: re.Match[str]) -> str:
        chars = match[0]
        if chars.isprintable() and _IGNORABLE.search(chars) is None:
            return chars
        return "".join(
            char if char.isprintable() and not _IGNORABLE.match(char) else escape(char)
            for char in chars
        )

    return suspects.sub(replace, text)


def _python_escape(char: str) -> str:
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{}\],:]|[^\[{}\],:"]+')
_MAX_SHORT_LINE = 72


def _indent(text: str) -> str:
    """Indent compact JSON; short arrays and objects stay on one line.

    `json.dumps` puts each number on its own line, and not every process lets it write long ones.
    """
    parts: list[str] = []
    open_brackets: list[tuple[int, int]] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in "[{":
            open_brackets.append((len(parts), match.start()))
            parts += (piece, "\n" + "  " * len(open_brackets))
        elif piece in "]}":
            first, start = open_brackets.pop()
            parts += ("\n" + "  " * len(open_brackets), piece)
            if match.end() - start <= _MAX_SHORT_LINE:
                parts[first:] = [_join(parts[first:])]
        elif piece == ",":
            parts += (",", "\n" + "  " * len(open_brackets))
        elif piece == ":":
            parts.append(": ")
        else:
            parts.append(piece)
    return "".join(parts)


def _join(parts: list[str]) -> str:
    """Join parts without their indents, the only parts that begin with a newline."""
    return "".join(
        part if part[0] != "\n" else " " if previous == "," else ""
        for previous, part in pairwise(["", *parts])
    )
