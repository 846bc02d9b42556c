"""Everything that differs between SQLite and PostgreSQL, and nothing else.

A statement, a row and a migration are written once for both; what they need to know of the
database they ask of a `StoreDialect`.
"""

from .base import Call, Diagnosis, Fault, Migrating, StoreDialect
from .health import Check, Finding, Subject, Told, Verdict, bad, duration, good, warning
from .options import EngineOptions, complete_options
from .postgresql.dialect import POSTGRESQL
from .sqlite.dialect import SQLITE
from .types import Identifier, JsonText, Sequence, UtcDateTime

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Call",
    "Check",
    "Diagnosis",
    "EngineOptions",
    "Fault",
    "Finding",
    "Identifier",
    "JsonText",
    "Migrating",
    "Sequence",
    "StoreDialect",
    "Subject",
    "Told",
    "UtcDateTime",
    "Verdict",
    "bad",
    "complete_options",
    "duration",
    "good",
    "warning",
]
