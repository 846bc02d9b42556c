r"""Text that shows what is in it.

An id, a result or an error may hold what acts on a terminal (escape sequences, a carriage
return), what reorders or hides text (bidi overrides, zero-width characters) or what no
encoding takes (lone surrogates). All of it is shown as an escape, such as `\x1b` or `\u202e`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from .. import json_codec
from ..state import JsonValue

__all__ = ["encodable", "pretty", "visible"]

_NOT_PLAIN = re.compile(r"[^ -~]+")
_NOT_PLAIN_IN_LINES = re.compile(r"[^ -~\n\t]+")

# Letters and marks to Python, which leave no trace where they stand (Unicode's property
# Default_Ignorable_Code_Point): fillers, joiners of graphemes, variation selectors.
_LEAVES_NO_TRACE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str, *, lines: bool = False) -> str:
    r"""Show as an escape what would not show, or would act on what shows it.

    That is all which `str.isprintable` does not count as printable (control and format
    characters, spaces and separators other than the space, surrogates, private and
    unassigned code points), and the letters and marks that leave no trace. Other Unicode
    stays. The escapes are Python's: `\n`, `\x1b`, `\u202e`, `\U000e0041`. A backslash stays
    as it is, so a text that spells an escape looks like one.

    Args:
        text: any string.
        lines: keep newlines and tabs, for a text of many lines.

    Returns:
        A text that any UTF-8 encoder takes; on one line, unless `lines` is true.
    """
    return _escaped(text, _NOT_PLAIN_IN_LINES if lines else _NOT_PLAIN, _python_escape)


def pretty(value: JsonValue) -> str:
    r"""Give the JSON of a value, indented by two spaces, with what is invisible escaped.

    The escapes are those of JSON (`\u001b`, and a pair of them beyond U+FFFF), so the text
    is still the JSON of the same value.

    Args:
        value: what a store has read back.
    """
    text = _indented(json_codec.encode(value, field="value"))
    return _escaped(text, _NOT_PLAIN_IN_LINES, _json_escape)


def encodable(text: str, encoding: str) -> str:
    """Show as an escape what an encoding does not have; a name that is unknown means ASCII."""
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode()


def _escaped(text: str, suspects: re.Pattern[str], escape: Callable[[str], str]) -> str:
    def shown(found: re.Match[str]) -> str:
        run = found[0]
        if run.isprintable() and _LEAVES_NO_TRACE.search(run) is None:
            return run
        return "".join(
            char if char.isprintable() and not _LEAVES_NO_TRACE.match(char) else escape(char)
            for char in run
        )

    return suspects.sub(shown, text)


def _python_escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{}\],:]|[^\[{}\],:"]+')
_SHORT_LINE = 72


def _indented(text: str) -> str:
    """Indent a compact JSON text; an array or object that is short stays on one line.

    `json.dumps` refuses integers of more than 4,300 digits, and gives each number its line.
    """
    parts: list[str] = []
    open_since: list[tuple[int, int]] = []
    for found in _PIECE.finditer(text):
        piece = found[0]
        if piece in "[{":
            open_since.append((len(parts), found.start()))
            parts += (piece, "\n" + "  " * len(open_since))
        elif piece in "]}":
            first, start = open_since.pop()
            parts += ("\n" + "  " * len(open_since), piece)
            if found.end() - start <= _SHORT_LINE:
                parts[first:] = [_on_one_line(parts[first:])]
        elif piece == ",":
            parts += (",", "\n" + "  " * len(open_since))
        elif piece == ":":
            parts.append(": ")
        else:
            parts.append(piece)
    return "".join(parts)


def _on_one_line(parts: list[str]) -> str:
    """Join parts without their indents; no other part begins with a newline."""
    return "".join(
        part if part[0] != "\n" else " " if before == "," else ""
        for before, part in pairwise(["", *parts])
    )
