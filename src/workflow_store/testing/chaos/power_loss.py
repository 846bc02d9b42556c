"""Loss of power under a SQLite file: what the disk may hold, from recorded writes and syncs.

`strace` records the writes and syncs of a process. At any moment, what was written before the
last completed sync of a file is on the disk; of what was written later, any part may be.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["STRACE", "Disk", "images"]

STRACE: Final = (
    "strace -f -y -xx -s 16777216 --seccomp-bpf "
    "-e trace=write,pwrite64,ftruncate,fsync,fdatasync,unlink -o {output}"
)
"""The command that records a process, to be followed by that of the process."""

SECTOR: Final = 512
"""Written completely or not at all."""

_CALL = re.compile(r"(\d+) +(\w+)\((?:\d+<|\")([^>\"]*)[>\"](?:, )?(.*)$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")


@dataclass(slots=True)
class _Event:
    """A system call that changes a file: its data at an offset, its size, a sync, its end."""

    file: str
    data: bytes | None = None
    at: int | None = None
    synced: int | None = None
    """Of a sync, how many events had completed when it began."""
    is_unlink: bool = False


@dataclass(slots=True)
class Disk:
    """The files of a database: what is on the disk, and what may be.

    Attributes:
        files: what is on the disk for certain.
        pending: what was written since the last sync of each file.
        records: what was written to the file of the history.
    """

    files: dict[str, bytearray]
    pending: dict[str, list[tuple[int, _Event]]] = field(default_factory=dict)
    records: bytearray = field(default_factory=bytearray)

    def apply(self, number: int, event: _Event) -> None:
        """Let an event happen."""
        if event.is_unlink:  # SQLite syncs the folder
            self.files.pop(event.file, None)
            self.pending.pop(event.file, None)
            return
        if event.synced is None:
            self.pending.setdefault(event.file, []).append((number, event))
            return
        pending = self.pending.get(event.file, [])
        content = self.files.setdefault(event.file, bytearray())
        for before, written in pending:
            if before < event.synced:
                _write(content, written)
        self.pending[event.file] = [one for one in pending if one[0] >= event.synced]

    def after_power_loss(self, rng: random.Random) -> dict[str, bytes]:
        """Return the files that a disk may hold after loss of power."""
        found = {}
        share = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        for file in {*self.files, *self.pending}:
            content = bytearray(self.files.get(file, b""))
            for _, event in self.pending.get(file, []):
                if event.data is None:
                    if rng.random() < share:
                        _write(content, event)
                    continue
                for start in range(0, len(event.data), SECTOR):
                    if rng.random() < share:
                        part = event.data[start : start + SECTOR]
                        _write(content, _Event(file, part, (event.at or 0) + start))
            found[file] = bytes(content)
        return found


def _write(content: bytearray, event: _Event) -> None:
    at = event.at or 0
    if event.data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(event.data)] = event.data


def images(
    trace: Path, database: Path, history: Path, *, before: bytes, rng: random.Random, count: int
) -> Iterator[tuple[dict[str, bytes], bytes]]:
    """Yield what a disk may hold at random moments, and the history until then.

    Args:
        trace: what `strace` recorded.
        database: the SQLite file.
        history: the file of the history.
        before: the content of the SQLite file when the process began.
        rng: chooses the moments and what is on the disk.
        count: how many.
    """
    names = {str(database), f"{database}-wal", f"{database}-journal", str(history)}
    events = [*_events(trace, names)]
    chosen = sorted(rng.choices(range(len(events)), k=count))
    disk = Disk({str(database): bytearray(before)})
    for number, event in enumerate(events):
        if event.file == str(history):
            disk.records += event.data or b""
        else:
            disk.apply(number, event)
        while chosen and chosen[0] == number:
            chosen.pop(0)
            yield disk.after_power_loss(rng), bytes(disk.records)


def _events(trace: Path, names: set[str]) -> Iterator[_Event]:
    """Yield the calls on these files, in the order in which they were completed."""
    completed = 0
    unfinished: dict[str, tuple[str, str, str, int]] = {}
    with trace.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if (resumed := _RESUMED.match(line)) is not None:
                process, _, rest = resumed.groups()
                name, file, arguments, began = unfinished.pop(process, ("", "", "", 0))
                arguments += rest
            elif (call := _CALL.match(line)) is not None:
                process, name, file, arguments = call.groups()
                began, file = completed, _text(file)
                if arguments.endswith("<unfinished ...>"):
                    arguments = arguments.removesuffix("<unfinished ...>").rstrip()
                    unfinished[process] = name, file, arguments, began
                    continue
            else:
                continue
            if file in names and " = -1 " not in line:
                yield _event(name, file, arguments, began)
                completed += 1


def _text(path: str) -> str:
    """Return a path as `-xx` prints it."""
    return _bytes(path).decode() if "\\x" in path else path


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _event(name: str, file: str, arguments: str, began: int) -> _Event:
    if name in {"fsync", "fdatasync"}:
        return _Event(file, synced=began)
    if name == "unlink":
        return _Event(file, is_unlink=True)
    if name == "ftruncate":
        return _Event(file, at=int(arguments.split(")", maxsplit=1)[0]))
    _, data, rest = arguments.split('"', 2)
    numbers = [int(number) for number in re.findall(r"-?\d+", rest)]
    written = _bytes(data)[: numbers[-1]]
    return _Event(file, written, numbers[1] if name == "pwrite64" else 0)
