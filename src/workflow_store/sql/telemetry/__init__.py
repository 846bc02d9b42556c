"""Whether anybody listens to the spans and metrics of a store."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from .spans import Telemetry

__all__ = ["start_telemetry"]

_LOG = logging.getLogger(__name__)

_OLDEST_API = (1, 30)
"""The first with all that is used; from others not even the names can be imported."""


def start_telemetry(engine: AsyncEngine, schema: str | None, *, own: bool) -> Telemetry | None:
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
    if _is_too_old():
        return None
    from .spans import listened

    return listened(engine, schema, own=own)


def _is_too_old() -> bool:
    try:
        found = importlib.metadata.version("opentelemetry-api")
    except importlib.metadata.PackageNotFoundError:  # somebody's bundle
        return False
    number = re.match(r"(\d+)\.(\d+)", found)
    if number is None or tuple(map(int, number.groups())) >= _OLDEST_API:
        return False
    _LOG.warning(
        "opentelemetry-api %s is too old to tell of a store: install %d.%d or newer",
        found, *_OLDEST_API,
    )  # fmt: skip
    return True
