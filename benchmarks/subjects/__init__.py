"""The subjects of the comparison."""

from __future__ import annotations

from ..subject import Subject
from .a2a_tasks import A2aPostgresql, A2aSqlite
from .dbos_steps import DbosPostgresql, DbosSqlite
from .langgraph_savers import LanggraphPostgresql, LanggraphSqlite
from .ours import OursPostgresql, OursSqliteFull, OursSqliteNormal
from .pgbench import Pgbench
from .raw_asyncpg import RawAsyncpg, RawAsyncpgPool
from .raw_sqlite3 import RawSqlite3Full, RawSqlite3Normal
from .redis_hash import RedisAlways, RedisEverysec
from .sqlalchemy_naive import SqlalchemyPostgresql, SqlalchemySqlite

__all__ = [
    "HUGE",
    "LARGE",
    "OURS",
    "SUBJECTS",
    "OursPostgresql",
    "OursSqliteFull",
    "OursSqliteNormal",
    "RawAsyncpgPool",
]

OURS: tuple[type[Subject], ...] = (OursSqliteFull, OursSqliteNormal, OursPostgresql)

SUBJECTS: tuple[type[Subject], ...] = (
    *OURS,
    RawSqlite3Full,
    RawSqlite3Normal,
    RawAsyncpg,
    RawAsyncpgPool,
    Pgbench,
    SqlalchemySqlite,
    SqlalchemyPostgresql,
    LanggraphSqlite,
    LanggraphPostgresql,
    DbosSqlite,
    DbosPostgresql,
    A2aSqlite,
    A2aPostgresql,
    RedisAlways,
    RedisEverysec,
)

LARGE: tuple[type[Subject], ...] = (
    *OURS,
    RawSqlite3Full,
    RawAsyncpg,
    RawAsyncpgPool,
    LanggraphSqlite,
    LanggraphPostgresql,
    RedisAlways,
)
"""Subjects that are measured with values of 100 KB too."""

HUGE: tuple[type[Subject], ...] = (*OURS, RawSqlite3Full, RawAsyncpg)
"""Subjects that are measured with a value of 5 MB too."""
