"""Report words that plain technical English avoids, as `file:line: 'words' (hint)`.

Python files are checked with their names, comments and messages, Markdown outside of code. Only
words that another word always serves better are listed, so that there are no false alarms.
"""

import ast
import re
import sys
from pathlib import Path

OPENINGS = {"gives?": "return", "says?": "report, print", "do what": "name the action"}
WORDS = {
    "tells?|told|telling": "report, show, know, distinguish",
    "mend(s|ed|ing)?": "fix",
    'whoever|somebody|nobody(?!")': "name the caller, the process or the owner",
    "(is|are|was|were) not there": "does not exist",
    "did not do what was asked": "rejected the operation",
    "but for": "except",
    "by (itself|themselves)": "automatically, alone",
    "lets? go of": "release, close",
}
FOLDERS = ("src", "migrations", "examples", "benchmarks", "docs", "tests/support", ".ci")
ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"^( *)```.*?^\1```|`[^`]+`", re.MULTILINE | re.DOTALL)
# A phrase may be broken over two lines, with the mark of the next comment or string between.
GAP = r"""(?:\s|["'#])+"""


def matches(text: str, rules: dict[str, str], start: str = r"\b") -> list[tuple[int, str]]:
    """Return the line, counted from 0, and the words of each match, with a hint."""
    return [
        (text.count("\n", 0, match.start()), f"{' '.join(match[0].split())!r} ({hint})")
        for words, hint in rules.items()
        for match in re.finditer(rf"{start}({words.replace(' ', GAP)})\b", text, re.IGNORECASE)
    ]


def problems(path: Path) -> list[tuple[int, str]]:
    """Return the matches in one file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return matches(CODE.sub(lambda code: "\n" * code[0].count("\n"), text), WORDS)
    found = matches(text, WORDS)
    for node in ast.walk(ast.parse(text)):  # a bare string documents what is before or around it
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            opening = matches(str(node.value.value), OPENINGS, start=r"\A\s*")
            found += [(node.lineno - 1, f"docstring opens with {words}") for _, words in opening]
    return found


paths = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
paths |= {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/GOALS.md"}
lines = [
    f"{path.relative_to(ROOT)}:{line + 1}: {words}"
    for path in sorted(paths - {Path(__file__).resolve()})
    for line, words in sorted(problems(path))
]
if lines:
    sys.exit("\n".join(lines))
