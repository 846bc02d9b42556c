"""Whether anybody listens to the spans and metrics of a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from .telemetry import Telemetry

__all__ = ["telemetry_of"]


def telemetry_of(engine: AsyncEngine, schema: str | None, *, own: bool) -> Telemetry | None:
    """Give what tells of a store; None where no provider of spans or metrics is set.

    Whoever has set one has imported the API of OpenTelemetry before. All others pay nothing
    for it, neither an import nor, later on, anything at a call.

    Args:
        engine: what the store works on.
        schema: the schema of the tables.
        own: whether the engine is the store's own.
    """
    if not sys.modules.get("opentelemetry.trace") and not sys.modules.get("opentelemetry.metrics"):
        return None
    from .telemetry import listened

    return listened(engine, schema, own=own)
