"""Faults of processes, of a network, of PostgreSQL and of SQLite, as small async functions.

They need Linux. Use them beside `workflow_store.testing.history`: it records what the clients
of a store observe while something fails, and checks that every answer was true.
"""

from .pooler import Pgbouncer
from .postgresql import PostgresqlServer, free_port, locked_tables, sessions, terminate, when_busy
from .processes import exists, kill, paused
from .proxy import Fate, PostgresqlProxy, Request
from .sqlite import lock_holders, locked_file

__all__ = [
    "Fate",
    "Pgbouncer",
    "PostgresqlProxy",
    "PostgresqlServer",
    "Request",
    "exists",
    "free_port",
    "kill",
    "lock_holders",
    "locked_file",
    "locked_tables",
    "paused",
    "sessions",
    "terminate",
    "when_busy",
]
