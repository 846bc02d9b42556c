"""Everything that differs between SQLite and PostgreSQL, and nothing else.

A statement, a row and a migration are written once for both; what they need to know of the
database they ask of a `StoreDialect`.
"""

from .base import Call, Diagnosis, Fault, StoreDialect
from .options import EngineOptions, complete_options
from .postgresql import POSTGRESQL
from .sqlite import SQLITE
from .types import Identifier, JsonText, Sequence, UtcDateTime

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Call",
    "Diagnosis",
    "EngineOptions",
    "Fault",
    "Identifier",
    "JsonText",
    "Sequence",
    "StoreDialect",
    "UtcDateTime",
    "complete_options",
]
