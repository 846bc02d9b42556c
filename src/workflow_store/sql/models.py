"""The tables, as SQLAlchemy models.

They say how a row looks to this version of the package; the revisions in `migrations/` say
how a database gets there, and a test holds the two together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, MetaData, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .dialects import Identifier, JsonText, Sequence, UtcDateTime

__all__ = ["REVISION", "VERSION_TABLE", "Base", "ClaimRow", "RunRow", "StepRow"]

REVISION = "ws_0001"
"""The database revision that these models need: the newest one in `migrations/`."""

VERSION_TABLE = "workflow_store_alembic_version"
"""The table that records the revision. Alembic's default name is left to the host application."""


class Base(DeclarativeBase):
    """The declarative base, with a name for every constraint, so that all can be altered."""

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
    """Give what makes an index one of only some rows."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class RunRow(Base):
    """One run. JSON columns hold text, as written by `workflow_store.json_codec`."""

    __tablename__ = "runs"
    __table_args__ = (
        # A listing by each filter reads one index, from the newest run on. An update of a
        # context changes none of them.
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

    run_task_id: Mapped[str] = mapped_column(Identifier, primary_key=True)
    agent_id: Mapped[str] = mapped_column(Identifier)
    thread_id: Mapped[str] = mapped_column(Identifier)
    user_id: Mapped[str] = mapped_column(Identifier)
    workspace_id: Mapped[str | None] = mapped_column(Identifier)
    entry_point: Mapped[str | None] = mapped_column(Identifier)
    definition: Mapped[str] = mapped_column(JsonText)
    input: Mapped[str] = mapped_column(JsonText)
    context: Mapped[str] = mapped_column(JsonText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StepRow(Base):
    """One step of a run. `seq` only grows: it is the order of first insertion."""

    __tablename__ = "steps"
    __table_args__ = (
        UniqueConstraint("run_task_id", "step_id"),
        # Not for completed steps, which most are and nearly every run has: a listing of those
        # finds a page among the newest runs, and a completed step costs no entry.
        Index(None, "status", "run_task_id", **_where("status <> 'completed'")),
        Index(None, "wait_task_id", **_where("wait_task_id IS NOT NULL")),
    )

    seq: Mapped[int] = mapped_column(Sequence, Identity(always=True), primary_key=True)
    run_task_id: Mapped[str] = mapped_column(
        Identifier, ForeignKey("runs.run_task_id", ondelete="CASCADE")
    )
    step_id: Mapped[str] = mapped_column(Identifier)
    status: Mapped[str] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(JsonText)
    # JSON too: PostgreSQL's text refuses NUL, and UTF-8 has no lone surrogates.
    error: Mapped[str | None] = mapped_column(JsonText)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    wait_task_id: Mapped[str | None] = mapped_column(Identifier)


class ClaimRow(Base):
    """The right to drive a run. A row of its own, so that a heartbeat never rewrites a run.

    A token is never used twice, whatever is deleted: a sequence gives it on PostgreSQL, and
    AUTOINCREMENT on SQLite. Taking a claim over makes a new row.
    """

    __tablename__ = "claims"
    __table_args__ = (
        UniqueConstraint("run_task_id"),
        Index(None, "expires_at"),
        {"sqlite_autoincrement": True},
    )

    token: Mapped[int] = mapped_column(Sequence, Identity(always=True), primary_key=True)
    run_task_id: Mapped[str] = mapped_column(
        Identifier, ForeignKey("runs.run_task_id", ondelete="CASCADE")
    )
    owner: Mapped[str] = mapped_column(Identifier)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
