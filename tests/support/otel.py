"""An OpenTelemetry SDK that exports to memory, and queries of its spans and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Listener:
    """The providers of an SDK that exports to memory."""

    def __init__(self, sampler: sampling.Sampler = sampling.ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == f"workflow_store.{name}"]

    def points(self, name: str, **attributes: Any) -> list[Any]:
        """Return the points of a metric with these attributes, `_` for each dot of a name."""
        found: list[Any] = []
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found += metric.data.data_points
        return [
            point
            for point in found
            if all(
                {key.replace(".", "_"): value for key, value in point.attributes.items()}.get(key)
                == value
                for key, value in attributes.items()
            )
        ]

    def all_that_was_told(self) -> str:
        data = self._reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans), data.to_json() if data else ""])


def listening(monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    """Set its providers as a program does, but so that they can be taken back."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: listener.tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: listener.meters)


def the_only(spans: Sequence[ReadableSpan]) -> ReadableSpan:
    (span,) = spans
    return span


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)
