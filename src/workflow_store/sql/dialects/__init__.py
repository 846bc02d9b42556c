"""Everything that differs between SQLite and PostgreSQL, and nothing else.

A statement, a row and a migration are written once for both; what they need to know of the
database they ask of a `StoreDialect`.
"""

from .base import Call, ErrorInfo, ErrorKind, MigrationRunner, StoreDialect
from .options import EngineOptions, validated_options
from .postgresql.dialect import POSTGRESQL
from .sqlite.dialect import SQLITE
from .types import Identifier, JsonText, Sequence, UtcDateTime

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Call",
    "EngineOptions",
    "ErrorInfo",
    "ErrorKind",
    "Identifier",
    "JsonText",
    "MigrationRunner",
    "Sequence",
    "StoreDialect",
    "UtcDateTime",
    "validated_options",
]
