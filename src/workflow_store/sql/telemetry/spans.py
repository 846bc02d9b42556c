"""Spans and metrics with OpenTelemetry; imported only if a provider is set.

They record the method, the database, the duration, and the type of an error. The only caller
data recorded is the run id, in spans. Error messages are left out: they may quote a key of a
payload. Names follow https://opentelemetry.io/docs/specs/semconv/database/database-spans/.
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
from ..urls import DatabaseUrl
from .metrics import Attributes, Instruments, Pool, instruments_for

__all__ = ["PendingWrite", "Telemetry", "create"]

_SCOPE = "workflow_store"
_METHODS = {
    name: next(iter(list(inspect.signature(method).parameters)[1:]))
    for name, method in inspect.getmembers(ResumableWorkflowStore, inspect.iscoroutinefunction)
    if not name.startswith("_") and name not in {"open", "close"}
}
"""The instrumented methods, with the name of their first argument."""

_NAMES_RUN = frozenset({"run_task_id", "state", "claim"})


def create(engine: AsyncEngine, schema: str | None, *, own: bool) -> Telemetry | None:
    """Return the telemetry of a store, or None if no SDK records anything."""
    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    if not (_is_real(tracers) or _is_real(meters)):
        return None
    version = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # bundled by an application
        version = importlib.metadata.version("workflow-store")
    tracer: trace.Tracer = trace.NoOpTracer()
    if _is_real(tracers):
        tracer = tracers.get_tracer(_SCOPE, version)
    meter: metrics.Meter = metrics.NoOpMeter(_SCOPE)
    if _is_real(meters):
        meter = meters.get_meter(_SCOPE, version)
    if not (_is_real(tracer) or _is_real(meter)):  # the SDK is disabled
        return None
    return Telemetry(tracer, instruments_for(meters, meter), engine, schema, own=own)


def _is_real(instance: object) -> bool:
    """Return whether an object is an SDK's, not the API's no-op."""
    return not type(instance).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )


class PendingWrite(NamedTuple):
    """A write that waits for its commit."""

    begun: float
    span: trace.Span


class Telemetry:
    """Records the calls and commits of one open store.

    Args:
        tracer: creates the spans.
        instruments: the instruments of the provider.
        engine: the engine of the store.
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
        url = DatabaseUrl.of_engine(engine)
        name = DatabaseUrl(url.dialect, url.url._replace(username=None, password=None)).name
        attributes = {**self._database, "db.client.connection.pool.name": name}
        self._pool = Pool(engine, attributes, own=own)

    # -- pool ---------------------------------------------------------------------------

    def track_pool(self) -> None:
        """Observe the pool from now on."""
        self._instruments.pools.add(self._pool)

    def untrack_pool(self) -> None:
        """Stop observing the pool."""
        self._instruments.pools.discard(self._pool)

    # -- calls --------------------------------------------------------------------------

    def instrument(self, store: WorkflowStore) -> None:
        """Record the calls of a store, or of a view of it, from now on.

        The methods are replaced on this object only, so that no other store pays for it.
        """
        for name, first in _METHODS.items():
            if hasattr(store, name):
                setattr(store, name, self._instrumented(name, first, getattr(store, name)))

    @staticmethod
    def uninstrument(store: WorkflowStore) -> None:
        """Stop recording its calls."""
        for name in _METHODS:
            vars(store).pop(name, None)

    def _instrumented(
        self, name: str, first: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        span_name = f"{_SCOPE}.{name}"
        attributes: Attributes = {**self._database, "db.operation.name": name}
        names_run = first in _NAMES_RUN

        @functools.wraps(method)
        async def instrumented(*args: Any, **kwargs: Any) -> Any:
            span = self._tracer.start_span(
                span_name, kind=trace.SpanKind.CLIENT, attributes=attributes
            )
            if names_run and span.is_recording():
                run_task_id = _run_task_id(args[0] if args else kwargs.get(first))
                if run_task_id is not None:
                    span.set_attribute("workflow_store.run_task_id", run_task_id)
            with _measured(span, self._instruments.call, attributes):
                return await method(*args, **kwargs)

        return instrumented

    # -- commits and retries --------------------------------------------------------------

    def pending_write(self) -> PendingWrite:
        """Return the note of a write that begins now, for `commit`."""
        return PendingWrite(perf_counter(), trace.get_current_span())

    @contextlib.contextmanager
    def commit(self, writes: Sequence[PendingWrite]) -> Iterator[None]:
        """Record the transaction of these writes, which runs in the block."""
        # An SDK takes some 10 microseconds per measurement: none is taken per write.
        self._instruments.wait.record(perf_counter() - writes[0].begun, self._database)
        self._instruments.writes.record(len(writes), self._database)
        attributes = self._database
        if len(writes) > 1:
            attributes = {**attributes, "db.operation.batch.size": len(writes)}
        # A child of a recorded span, if there is one, so that a sampler records it too.
        recorded = [write.span for write in writes if write.span.is_recording()]
        parent = recorded[0] if recorded else writes[0].span
        span = self._tracer.start_span(
            f"{_SCOPE}.commit",
            trace.set_span_in_context(parent, Context()),
            attributes=attributes,
            links=[trace.Link(writer.get_span_context()) for writer in recorded],
        )
        if span.is_recording():
            for writer in recorded:
                writer.add_link(span.get_span_context())
        with _measured(span, self._instruments.commit, self._database):
            yield

    def retried(self, error_type: str) -> None:
        """Record a failed attempt that is repeated."""
        error = {"error.type": error_type}
        trace.get_current_span().add_event("workflow_store.retry", error)
        self._instruments.retries.add(1, {**self._database, **error})


@contextlib.contextmanager
def _measured(
    span: trace.Span, duration: metrics.Histogram, attributes: Attributes
) -> Iterator[None]:
    """Run the block in the span, end the span, and record the duration."""
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


def _run_task_id(argument: Any) -> str | None:
    """Return the id of a run, if it is one: it may be a payload passed by mistake."""
    try:
        return validated_identifier(getattr(argument, "run_task_id", argument), name="run_task_id")
    except InvalidStateError:
        return None


def _describe(engine: AsyncEngine, schema: str | None) -> Attributes:
    """Return the attributes of a database, without its user."""
    url = make_url(DatabaseUrl.of_engine(engine).name)
    attributes: Attributes = {"db.system.name": engine.dialect.name}
    if url.database:
        attributes["db.namespace"] = f"{url.database}|{schema}" if schema else url.database
    if url.host:
        attributes["server.address"] = url.host
    if url.port:
        attributes["server.port"] = url.port
    return attributes
