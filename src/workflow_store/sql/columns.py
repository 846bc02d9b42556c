"""The columns of each write and of each read, in the order of the values in a row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Float, Text

from .dialects import Identifier
from .models import Base

__all__ = [
    "CLAIMS",
    "COMMIT",
    "CONTEXT",
    "ENDED",
    "FENCE",
    "KEY",
    "LEASE",
    "RENEWAL",
    "RUN",
    "RUNS",
    "STEP",
    "STEPS",
    "STEP_KEY",
    "STEP_READ",
    "WAITING",
]

RUNS = Base.metadata.tables["runs"]
STEPS = Base.metadata.tables["steps"]
CLAIMS = Base.metadata.tables["claims"]

RUN = list(RUNS.c)
CONTEXT = [RUNS.c.run_task_id, RUNS.c.context, RUNS.c.updated_at]
STEP = [column for column in STEPS.c if column is not STEPS.c.seq]
STEP_READ = [
    *(STEPS.c[name] for name in ("step_id", "status", "result", "error", "wait_task_id")),
    *(STEPS.c[name] for name in ("started_at", "completed_at")),  # times come last, as in RUN
]
KEY = [RUNS.c.run_task_id]
STEP_KEY = [STEPS.c.run_task_id, STEPS.c.step_id]
COMMIT = [*STEP, *CONTEXT[1:]]
# What is given and kept nowhere: a claim that must hold, and how long it is to hold from now.
FENCE: list[Column[Any]] = [Column("fence_run", Identifier), Column("fence_token", BigInteger)]
# The statuses that are given, in which a step does not wait any more.
ENDED: list[Column[Any]] = [Column(f"ended_{number}", Text) for number in range(3)]
WAITING = [STEPS.c.wait_task_id, *ENDED]
LEASE: Column[Any] = Column("lease_s", Float)
RENEWAL = [CLAIMS.c.run_task_id, CLAIMS.c.token, LEASE]
