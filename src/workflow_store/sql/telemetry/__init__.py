"""OpenTelemetry for a store, started only if a provider is set."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from .spans import Telemetry

__all__ = ["start_telemetry"]

_LOG = logging.getLogger("workflow_store.telemetry")


def start_telemetry(engine: AsyncEngine, schema: str | None, *, own: bool) -> Telemetry | None:
    """Return the telemetry of a store, or None if no provider of spans or metrics is set.

    Setting a provider imports the OpenTelemetry API. If the API has not been imported, there
    is nothing to do and nothing is imported here.

    Args:
        engine: the engine of the store.
        schema: the schema of the tables.
        own: whether the engine is the store's own.
    """
    if not sys.modules.get("opentelemetry.trace") and not sys.modules.get("opentelemetry.metrics"):
        return None
    try:
        from .spans import create

        return create(engine, schema, own=own)
    except (ImportError, TypeError) as error:
        # An API before 1.30 lacks names and arguments.
        _LOG.warning("no telemetry: %s. Install opentelemetry-api 1.30 or newer.", error)
        return None
