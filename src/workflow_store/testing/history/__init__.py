"""Records what concurrent clients of a store observe, and checks that every answer was true.

A `RecordedStore` writes each call and its answer to a file; `read_history` reads the files of
all processes, and `check` reports what no correct store could have answered.
"""

from .checker import Rule, Violation, check
from .recorder import RecordedStore, Recorder
from .records import Fence, History, Operation, read_history

__all__ = [
    "Fence",
    "History",
    "Operation",
    "RecordedStore",
    "Recorder",
    "Rule",
    "Violation",
    "check",
    "read_history",
]
