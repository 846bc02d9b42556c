"""Spans and metrics by OpenTelemetry; imported only where somebody may listen to them.

They tell which method was called on which database, how long it took and how it ended, by
the type of the error. The one thing in them that is a caller's is the id of a run, in spans.
No message of an error is in them: it may quote a key from inside a payload.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from ...errors import InvalidStateError
from ...store import ResumableWorkflowStore, WorkflowStore
from ...validation import validated_identifier
from ..urls import masked
from .metrics import Attributes, Instruments, Pool, instruments_for

__all__ = ["Call", "Telemetry", "listened"]

_SCOPE = "workflow_store"
_METHODS = {
    name: next(iter(list(inspect.signature(method).parameters)[1:]))
    for name, method in inspect.getmembers(ResumableWorkflowStore, inspect.iscoroutinefunction)
    if not name.startswith("_") and name not in {"open", "close"}
}
"""What is observed, with the name of its first argument."""

_TELLS_RUN = frozenset({"run_task_id", "state", "claim"})


def listened(engine: AsyncEngine, schema: str | None, *, own: bool) -> Telemetry | None:
    """Do what `start_telemetry` says, now that there is an API."""
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    if not (_is_real(tracers) or _is_real(meters)):
        return None
    version = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # somebody's bundle
        version = importlib.metadata.version("workflow-store")
    tracer: trace.Tracer = trace.NoOpTracer()
    if _is_real(tracers):
        tracer = tracers.get_tracer(_SCOPE, version)
    meter: metrics.Meter = metrics.NoOpMeter(_SCOPE)
    if _is_real(meters):
        meter = meters.get_meter(_SCOPE, version)
    if not (_is_real(tracer) or _is_real(meter)):  # the SDK is there and disabled
        return None
    return Telemetry(tracer, instruments_for(meters, meter), engine, schema, own=own)


def _is_real(given: object) -> bool:
    """Tell what an SDK gives from the API's own, which does nothing."""
    return not type(given).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


class Call(NamedTuple):
    """A write that waits for its commit."""

    begun: float
    span: trace.Span


class Telemetry:
    """Tells whoever listens of one open store.

    Args:
        tracer: makes the spans.
        instruments: take the measurements; those of all stores of a provider.
        engine: what the store works on.
        schema: the schema of the tables.
        own: whether the engine is the store's own.
    """

    def __init__(
        self,
        tracer: trace.Tracer,
        instruments: Instruments,
        engine: AsyncEngine,
        schema: str | None,
        *,
        own: bool,
    ) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._database = _describe(engine, schema)
        name = masked(engine.url._replace(username=None, password=None))
        attributes = {**self._database, "db.client.connection.pool.name": name}
        self._pool = Pool(engine, attributes, own=own)

    # -- life ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to tell of the pool."""
        self._instruments.pools.add(self._pool)

    def end(self) -> None:
        """Tell of the pool no more."""
        self._instruments.pools.discard(self._pool)

    # -- calls --------------------------------------------------------------------------

    def observe(self, store: WorkflowStore) -> None:
        """Tell of the calls of a store, or of a view of it, from now on.

        The methods are replaced on this one object, so that no other pays for it.
        """
        for name, first in _METHODS.items():
            if hasattr(store, name):
                setattr(store, name, self._observed(name, first, getattr(store, name)))

    @staticmethod
    def leave(store: WorkflowStore) -> None:
        """Tell of its calls no more."""
        for name in _METHODS:
            vars(store).pop(name, None)

    def _observed(
        self, name: str, first: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        span_name = f"{_SCOPE}.{name}"
        attributes: Attributes = {**self._database, "db.operation.name": name}
        tells_run = first in _TELLS_RUN

        @functools.wraps(method)
        async def observed(*args: Any, **kwargs: Any) -> Any:
            span = self._tracer.start_span(
                span_name, kind=trace.SpanKind.CLIENT, attributes=attributes
            )
            if tells_run and span.is_recording():
                run_task_id = _run_task_id(args[0] if args else kwargs.get(first))
                if run_task_id is not None:
                    span.set_attribute("workflow_store.run_task_id", run_task_id)
            with _measured(span, self._instruments.call, attributes):
                return await method(*args, **kwargs)

        return observed

    # -- what a call is made of ------------------------------------------------------------

    def call(self) -> Call:
        """Give what `commit` is to know of a write that begins now."""
        return Call(perf_counter(), trace.get_current_span())

    @contextlib.contextmanager
    def commit(self, calls: Sequence[Call]) -> Iterator[None]:
        """Tell of a transaction that writes for these calls while the block runs."""
        # An SDK takes some 10 microseconds for each measurement: none for each call.
        self._instruments.wait.record(perf_counter() - calls[0].begun, self._database)
        self._instruments.writes.record(len(calls), self._database)
        attributes = self._database
        if len(calls) > 1:
            attributes = {**attributes, "db.operation.batch.size": len(calls)}
        # A child of one of them, so that it is recorded where one of them is.
        recorded = [call.span for call in calls if call.span.is_recording()]
        parent = recorded[0] if recorded else calls[0].span
        span = self._tracer.start_span(
            f"{_SCOPE}.commit",
            trace.set_span_in_context(parent, Context()),
            attributes=attributes,
            links=[trace.Link(each.get_span_context()) for each in recorded],
        )
        if span.is_recording():
            for each in recorded:
                each.add_link(span.get_span_context())
        with _measured(span, self._instruments.commit, self._database):
            yield

    def retried(self, error_type: str) -> None:
        """Tell of an attempt that failed and is followed by another."""
        error = {"error.type": error_type}
        trace.get_current_span().add_event("workflow_store.retry", error)
        self._instruments.retries.add(1, {**self._database, **error})


@contextlib.contextmanager
def _measured(
    span: trace.Span, duration: metrics.Histogram, attributes: Attributes
) -> Iterator[None]:
    """Have the span be the current one, and end it and record how long it took."""
    begun = perf_counter()
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield
        except BaseException as error:
            error_type = type(error).__name__
            attributes = {**attributes, "error.type": error_type}
            span.set_attribute("error.type", error_type)
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            duration.record(perf_counter() - begun, attributes)


def _run_task_id(given: Any) -> str | None:
    """Give the id of a run; what is none may be a payload that was put there by mistake."""
    try:
        return validated_identifier(getattr(given, "run_task_id", given), name="run_task_id")
    except InvalidStateError:
        return None


def _describe(engine: AsyncEngine, schema: str | None) -> Attributes:
    """Name a database in the words of the semantic conventions, without its user."""
    url = make_url(masked(engine.url))
    found: Attributes = {"db.system.name": engine.dialect.name}
    if url.database:
        found["db.namespace"] = f"{url.database}|{schema}" if schema else url.database
    if url.host:
        found["server.address"] = url.host
    if url.port:
        found["server.port"] = url.port
    return found
