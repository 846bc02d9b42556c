"""The metrics of all stores; imported only if a provider is set."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from opentelemetry import metrics
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

__all__ = ["Attributes", "Instruments", "Pool", "instruments_for"]

Attributes = dict[str, str | int]

_CALL_S = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
"""The buckets of the semantic conventions.

https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
"""

_WRITE_S = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]  # fmt: skip
_WRITES = [1, 2, 5, 10, 20, 50, 100, 200, 500]


class Pool:
    """The connection pool of an engine, observed at each export."""

    def __init__(self, engine: AsyncEngine, attributes: Attributes, *, own: bool) -> None:
        self.engine = engine.sync_engine
        self._attributes = attributes
        self._own = own

    def connections(self) -> Iterator[tuple[Attributes, int]]:
        """Yield the numbers of used and idle connections, if the pool reports them."""
        pool = self.engine.pool
        if isinstance(pool, QueuePool):
            for state, count in (("used", pool.checkedout()), ("idle", pool.checkedin())):
                yield {**self._attributes, "db.client.connection.state": state}, count

    def max_connections(self) -> Iterator[tuple[Attributes, int]]:
        """Yield the maximum, which is unknown for a caller's engine."""
        pool = self.engine.pool
        if self._own and isinstance(pool, QueuePool):
            yield self._attributes, pool.size()


class Instruments:
    """The instruments of one provider, for all of its stores.

    Attributes:
        call: the duration of a call, in seconds.
        wait: how long the first write of a transaction waits for its begin, in seconds; the
            others wait less.
        commit: the duration of a transaction of writes, in seconds.
        writes: the number of writes that share a transaction.
        retries: failed attempts that were repeated.
        pools: the pools of the open stores.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        def seconds(name: str, description: str, buckets: Sequence[float]) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=buckets
            )

        self.call = seconds("db.client.operation.duration", "Duration of store calls.", _CALL_S)
        self.wait = seconds(
            "workflow_store.queue.wait_time",
            "Time that the first write of a transaction waits for it to begin.",
            _WRITE_S,
        )
        self.commit = seconds(
            "workflow_store.commit.duration", "Duration of write transactions.", _WRITE_S
        )
        self.writes = meter.create_histogram(
            "workflow_store.commit.writes",
            "{write}",
            "Number of writes per transaction.",
            explicit_bucket_boundaries_advisory=_WRITES,
        )
        self.retries = meter.create_counter(
            "workflow_store.retries", "{retry}", "Number of failed attempts that were retried."
        )
        self.pools: set[Pool] = set()
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [lambda _: self._sum(Pool.connections)],
            "{connection}",
            "Number of connections in the pool, by state.",
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.max",
            [lambda _: self._sum(Pool.max_connections)],
            "{connection}",
            "Maximum number of connections in the pool.",
        )

    def _sum(
        self, observe: Callable[[Pool], Iterator[tuple[Attributes, int]]]
    ) -> list[metrics.Observation]:
        """Sum the observations of equal attributes: stores of one database have a pool each.

        Called in the exporter's thread.
        """
        counts: Counter[tuple[tuple[str, str | int], ...]] = Counter()
        # Stores may share a caller's engine.
        for pool in {pool.engine: pool for pool in tuple(self.pools)}.values():
            for attributes, count in observe(pool):
                counts[tuple(attributes.items())] += count
        return [metrics.Observation(count, dict(key)) for key, count in counts.items()]


class _Known(NamedTuple):
    provider: metrics.MeterProvider  # kept alive, so that its id is not reused
    instruments: Instruments


_KNOWN: dict[int, _Known] = {}
_LOCK = threading.Lock()


def instruments_for(provider: metrics.MeterProvider, meter: metrics.Meter) -> Instruments:
    """Return the provider's instruments.

    They are created once, since callbacks cannot be unregistered.
    """
    with _LOCK:
        known = _KNOWN.get(id(provider))
        if known is None:
            known = _KNOWN[id(provider)] = _Known(provider, Instruments(meter))
        return known.instruments
