"""The steps of the workflow: a report on the sources of Python's standard library.

Each function takes the results of the steps on which its step depends, by step id.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_store import JsonValue

Results = dict[str, Any]
Counts = dict[str, Counter[str]]
"""Counters by package."""

PARSING = threading.Lock()
"""CPython 3.11 may confuse the depths of two trees that two threads build concurrently."""

LEFT_OUT = {"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"}


def list_files(_: Results) -> JsonValue:
    """List the sources of the standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - LEFT_OUT
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        files += [path.relative_to(root).as_posix() for path in paths]
    return {"root": str(root), "files": sorted(files)}


def hash_files(results: Results, part: int, of: int) -> JsonValue:
    """Hash each file."""
    return {file: hashlib.sha256(source).hexdigest() for file, source in _read(results, part, of)}


def count_lines(results: Results, part: int, of: int) -> JsonValue:
    """Count files and lines."""
    counts: Counts = defaultdict(Counter)
    for file, source in _read(results, part, of):
        counts[_package(file)] += Counter(files=1, lines=len(source.splitlines()))
    return counts


def count_definitions(results: Results, part: int, of: int) -> JsonValue:
    """Count functions and classes."""
    counts: Counts = defaultdict(Counter)
    for file, source in _read(results, part, of):
        with PARSING:
            tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                counts[_package(file)]["functions"] += 1
            elif isinstance(node, ast.ClassDef):
                counts[_package(file)]["classes"] += 1
    return counts


def fingerprint(results: Results) -> JsonValue:
    """Hash all files together, and count those that are a copy of another."""
    hashes = {file: digest for part in results.values() for file, digest in part.items()}
    lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(hashes.items()))
    return {
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "copies": len(hashes) - len(set(hashes.values())),
    }


def merge(results: Results) -> JsonValue:
    """Add up the counters of the parts."""
    counts: Counts = defaultdict(Counter)
    for part in results.values():
        for package, numbers in part.items():
            counts[package] += Counter(numbers)
    return counts


def report(results: Results) -> JsonValue:
    """Render the largest packages and the total as a table."""
    counts: Counts = {name: Counter(numbers) for name, numbers in results["merge"].items()}
    largest = sorted(counts, key=lambda name: (-counts[name]["lines"], name))
    columns = ("files", "lines", "functions", "classes")
    rows = [(name, counts[name]) for name in largest[: results["choose"]["packages"]]]
    rows.append(("all packages", sum(counts.values(), Counter())))
    return "\n".join(
        [
            f"{'package':<16}" + "".join(f"{column:>11}" for column in columns),
            *(f"{name:<16}" + "".join(f"{n[c]:>11,}" for c in columns) for name, n in rows),
            f"{results['fingerprint']['copies']} files are copies of another",
            f"sha256 of all: {results['fingerprint']['sha256']}",
        ]
    )


def _read(results: Results, part: int, of: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files of one part of the list, such as part 2 of 4."""
    listed = results["list_files"]
    for file in listed["files"][part - 1 :: of]:
        yield file, Path(listed["root"], file).read_bytes()


def _package(file: str) -> str:
    package, slash, _ = file.partition("/")
    return package if slash else "(modules)"


FUNCTIONS = {
    function.__name__: function
    for function in (
        list_files, hash_files, count_lines, count_definitions, fingerprint, merge, report,
    )
}  # fmt: skip
