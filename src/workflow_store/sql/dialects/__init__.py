"""The differences between SQLite and PostgreSQL.

Statements, rows and migrations are written once for both databases and ask a `StoreDialect`.
"""

from .base import DriverCall, MigrationRunner, StoreDialect
from .errors import RETRY_LATER, ErrorInfo, ErrorKind, UnknownOutcomeError
from .options import EngineOptions, validated_options
from .postgresql.dialect import POSTGRESQL
from .sqlite.dialect import SQLITE
from .types import AutoIncrement, IdentifierText, JsonText, UtcDateTime

__all__ = [
    "POSTGRESQL", "RETRY_LATER", "SQLITE", "AutoIncrement", "DriverCall", "EngineOptions",
    "ErrorInfo", "ErrorKind", "IdentifierText", "JsonText", "MigrationRunner", "StoreDialect",
    "UnknownOutcomeError", "UtcDateTime", "validated_options",
]  # fmt: skip
