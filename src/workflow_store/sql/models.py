"""The tables, as SQLAlchemy models.

They say how a row looks to this version of the package; the revisions in `migrations/` say
how a database gets there, and a test holds the two together.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .dialects import Identifier, JsonText, Sequence, UtcDateTime

__all__ = ["REVISION", "VERSION_TABLE", "Base", "RunRow", "StepRow"]

REVISION = "0002"
"""The revision of the database that these models need: the newest in `migrations/`."""

VERSION_TABLE = "workflow_store_alembic_version"
"""Where the revision is kept. Alembic's own default name is left to the host application."""


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


class RunRow(Base):
    """One run. JSON columns hold text, as written by `workflow_store.json_codec`."""

    __tablename__ = "runs"

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
    __table_args__ = (UniqueConstraint("run_task_id", "step_id"),)

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
