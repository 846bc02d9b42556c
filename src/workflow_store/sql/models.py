"""The tables as SQLAlchemy models, and the columns of each read and write.

The models describe the tables that this version needs; the revisions in `migrations/` create
them, and a test compares the two. The column lists are the only place that fixes the order of
the values in a row: `workflow_store.sql.rows` reads and builds rows by column name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .dialects import AutoIncrement, IdentifierText, JsonText, UtcDateTime

__all__ = [
    "CLAIMS", "COMMIT_COLUMNS", "CONTEXT_COLUMNS", "ENDED_COLUMNS", "FENCE_COLUMNS",
    "RENEWAL_COLUMNS", "REVISION", "RUNS", "RUN_COLUMNS", "RUN_KEY", "STEPS", "STEP_COLUMNS",
    "STEP_KEY", "STEP_VALUES", "VERSION_TABLE", "WAITING_COLUMNS", "Base", "ClaimRow", "RunRow",
    "StepRow",
]  # fmt: skip

REVISION = "ws_0001"
"""The database revision that these models need: the newest one in `migrations/`."""

VERSION_TABLE = "workflow_store_alembic_version"
"""The table with the revision. Alembic's default name is left to the host application."""


class Base(DeclarativeBase):
    """The declarative base. Every constraint has a name, so that a revision can alter it."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


def _where(condition: str) -> dict[str, Any]:
    """Return the options of a partial index."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class RunRow(Base):
    """One run. JSON columns hold text, as written by `workflow_store.json_codec`."""

    __tablename__ = "runs"
    __table_args__ = (
        # A listing by any filter reads one index, from the newest run on. An update of a
        # context changes no index.
        Index(None, "created_at", "run_task_id"),
        Index(None, "agent_id", "created_at", "run_task_id"),
        Index(None, "thread_id", "created_at", "run_task_id"),
        Index(None, "user_id", "created_at", "run_task_id"),
        Index(
            None,
            "workspace_id",
            "created_at",
            "run_task_id",
            **_where("workspace_id IS NOT NULL"),
        ),
    )

    run_task_id: Mapped[str] = mapped_column(IdentifierText, primary_key=True)
    agent_id: Mapped[str] = mapped_column(IdentifierText)
    thread_id: Mapped[str] = mapped_column(IdentifierText)
    user_id: Mapped[str] = mapped_column(IdentifierText)
    workspace_id: Mapped[str | None] = mapped_column(IdentifierText)
    entry_point: Mapped[str | None] = mapped_column(IdentifierText)
    definition: Mapped[str] = mapped_column(JsonText)
    input: Mapped[str] = mapped_column(JsonText)
    context: Mapped[str] = mapped_column(JsonText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StepRow(Base):
    """One step of a run. `seq` only grows: the order of first insertion."""

    __tablename__ = "steps"
    __table_args__ = (
        UniqueConstraint("run_task_id", "step_id"),
        # Completed steps are left out: most steps are completed, so that a listing by that
        # status finds a page among the newest runs without an index.
        Index(None, "status", "run_task_id", **_where("status <> 'completed'")),
        Index(None, "wait_task_id", **_where("wait_task_id IS NOT NULL")),
    )

    seq: Mapped[int] = mapped_column(AutoIncrement, Identity(always=True), primary_key=True)
    run_task_id: Mapped[str] = mapped_column(
        IdentifierText, ForeignKey("runs.run_task_id", ondelete="CASCADE")
    )
    step_id: Mapped[str] = mapped_column(IdentifierText)
    status: Mapped[str] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(JsonText)
    # JSON too: PostgreSQL's text rejects NUL, and UTF-8 has no lone surrogates.
    error: Mapped[str | None] = mapped_column(JsonText)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    wait_task_id: Mapped[str | None] = mapped_column(IdentifierText)


class ClaimRow(Base):
    """The right to drive a run. A table of its own, so that a heartbeat never rewrites a run.

    A token is never used twice, even after deletions: a sequence draws it on PostgreSQL,
    AUTOINCREMENT on SQLite (https://sqlite.org/autoinc.html). A takeover inserts a new row.
    """

    __tablename__ = "claims"
    __table_args__ = (
        UniqueConstraint("run_task_id"),
        Index(None, "expires_at"),
        {"sqlite_autoincrement": True},
    )

    token: Mapped[int] = mapped_column(AutoIncrement, Identity(always=True), primary_key=True)
    run_task_id: Mapped[str] = mapped_column(
        IdentifierText, ForeignKey("runs.run_task_id", ondelete="CASCADE")
    )
    owner: Mapped[str] = mapped_column(IdentifierText)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


RUNS = Base.metadata.tables["runs"]
STEPS = Base.metadata.tables["steps"]
CLAIMS = Base.metadata.tables["claims"]

RUN_KEY = [RUNS.c.run_task_id]
RUN_COLUMNS = list(RUNS.c)
CONTEXT_COLUMNS = [RUNS.c.run_task_id, RUNS.c.context, RUNS.c.updated_at]
STEP_KEY = [STEPS.c.run_task_id, STEPS.c.step_id]
STEP_COLUMNS = [column for column in STEPS.c if column is not STEPS.c.seq]
STEP_VALUES = [column for column in STEP_COLUMNS if column is not STEPS.c.run_task_id]
COMMIT_COLUMNS = [*STEP_COLUMNS, *CONTEXT_COLUMNS[1:]]

# Parameters that no table stores: the claim that must hold, the duration of a renewal in
# seconds, and the statuses in which a step no longer waits.
FENCE_COLUMNS: list[Column[Any]] = [
    Column("fence_run", IdentifierText),
    Column("fence_token", BigInteger),
]
RENEWAL_COLUMNS = [CLAIMS.c.run_task_id, CLAIMS.c.token, Column("lease_s", Float)]
ENDED_COLUMNS: list[Column[Any]] = [Column(f"ended_{number}", Text) for number in range(3)]
WAITING_COLUMNS = [STEPS.c.wait_task_id, *ENDED_COLUMNS]
