"""Everything that differs between SQLite and PostgreSQL, and nothing else.

A statement, a row and a migration are written once for both; what they need to know of the
database they ask of a `StoreDialect`.
"""

from .base import Call, ErrorInfo, ErrorKind, MigrationRunner, StoreDialect
from .health import Check, Finding, Subject, Told, Verdict, bad, duration, good, warning
from .options import EngineOptions, validated_options
from .postgresql.dialect import POSTGRESQL
from .sqlite.dialect import SQLITE
from .types import Identifier, JsonText, Sequence, UtcDateTime

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Call",
    "Check",
    "EngineOptions",
    "ErrorInfo",
    "ErrorKind",
    "Finding",
    "Identifier",
    "JsonText",
    "MigrationRunner",
    "Sequence",
    "StoreDialect",
    "Subject",
    "Told",
    "UtcDateTime",
    "Verdict",
    "bad",
    "duration",
    "good",
    "validated_options",
    "warning",
]
