"""What producers and consumers count: always there, under OpenData's names, exported on demand.

``stats()`` of either carries a snapshot. ``PrometheusCollector`` shows the same to a registry of
the package ``prometheus-client`` (``pip install 'walengine[prometheus]'``), dots written as
underscores::

    from prometheus_client import REGISTRY
    from walengine.buffer.metrics import PrometheusCollector

    REGISTRY.register(PrometheusCollector(producer, consumer))

Numbers are changed on one event loop and may be read from any thread; a snapshot taken between two
changes shows the first and not the second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple, Protocol

__all__ = [
    "INSTRUMENTS",
    "HistogramSnapshot",
    "Instrument",
    "Metrics",
    "MetricsSnapshot",
    "PrometheusCollector",
]

Role = Literal["producer", "consumer"]
Kind = Literal["counter", "gauge", "histogram"]

BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets, in seconds; the last bucket has none."""


class Instrument(NamedTuple):
    """One thing that is measured.

    Attributes:
        kind: A counter only grows, a gauge is what it was last set to.
        roles: Who has it; what both have is exported with the label ``role``.
        help: What it says, in a line.
    """

    kind: Kind
    roles: tuple[Role, ...]
    help: str


_PRODUCER: tuple[Role, ...] = ("producer",)
_CONSUMER: tuple[Role, ...] = ("consumer",)
_BOTH: tuple[Role, ...] = ("producer", "consumer")

INSTRUMENTS: Final[Mapping[str, Instrument]] = {
    "buffer.batches_flushed": Instrument("counter", _PRODUCER, "batches that became durable"),
    "buffer.entries_flushed": Instrument("counter", _PRODUCER, "entries in them"),
    "buffer.bytes_flushed": Instrument("counter", _PRODUCER, "bytes in them, before compression"),
    "buffer.bytes_written": Instrument("counter", _PRODUCER, "bytes of batch objects written"),
    "buffer.flush_duration_seconds": Instrument(
        "histogram", _PRODUCER, "from a batch's sealing until it was durable"
    ),
    "buffer.batches_collected": Instrument("counter", _CONSUMER, "batches fetched"),
    "buffer.entries_collected": Instrument("counter", _CONSUMER, "entries in them"),
    "buffer.bytes_collected": Instrument("counter", _CONSUMER, "bytes of batch objects read"),
    "buffer.fetch_duration_seconds": Instrument(
        "histogram", _CONSUMER, "fetching and decoding a batch"
    ),
    "buffer.consumer_lag_seconds": Instrument(
        "gauge", _CONSUMER, "age of the newest entry of the last batch delivered"
    ),
    "buffer.queue_length": Instrument("gauge", _CONSUMER, "batches listed in the manifest"),
    "buffer.acks": Instrument("counter", _CONSUMER, "batches acked"),
    "buffer.batches_skipped": Instrument("counter", _CONSUMER, "batches passed over by skip()"),
    "buffer.gc_files_deleted": Instrument("counter", _CONSUMER, "batch objects collected"),
    "buffer.gc_files_failed": Instrument("counter", _CONSUMER, "deletions that failed"),
    "buffer.gc_duration_seconds": Instrument("histogram", _CONSUMER, "a collector's pass"),
    "buffer.manifest_writes": Instrument("counter", _BOTH, "attempts to swap the manifest"),
    "buffer.manifest_conflicts": Instrument("counter", _BOTH, "swaps that somebody else won"),
}


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """A histogram as it was.

    Attributes:
        count: How many values.
        sum: All of them added up.
        buckets: How many were at most each bound of ``BUCKETS_S``.
    """

    count: int
    sum: float
    buckets: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean; 0 without a value."""
        return self.sum / self.count if self.count else 0.0


MetricsSnapshot = Mapping[str, float | HistogramSnapshot]
"""Name, as in INSTRUMENTS -> what it was."""


class Metrics:
    """The instruments of one producer or consumer, all of them 0 at first.

    Args:
        role: Whose.

    Example:
        >>> metrics = Metrics("consumer")
        >>> metrics.count("buffer.acks", 3)
        >>> metrics.snapshot()["buffer.acks"]
        3
    """

    __slots__ = ("_histograms", "_numbers", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        mine = {name: each.kind for name, each in INSTRUMENTS.items() if role in each.roles}
        self._numbers: dict[str, float] = {
            name: 0 for name, kind in mine.items() if kind != "histogram"
        }
        self._histograms = {
            name: _Histogram() for name, kind in mine.items() if kind == "histogram"
        }

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._numbers[name] += by

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        if name not in self._numbers:
            raise KeyError(name)
        self._numbers[name] = value

    def observe(self, name: str, value_s: float) -> None:
        """Add a value to a histogram."""
        self._histograms[name].observe(value_s)

    def snapshot(self) -> MetricsSnapshot:
        """Return all of them as they are now."""
        histograms = {name: each.snapshot() for name, each in self._histograms.items()}
        return {**self._numbers, **histograms}


class _Histogram:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS_S, value)] += 1
        self.sum += value

    def snapshot(self) -> HistogramSnapshot:
        counts = tuple(accumulate(self.counts))
        return HistogramSnapshot(counts[-1], self.sum, counts[:-1])


class HasMetrics(Protocol):
    """A producer or a consumer, of either kind."""

    @property
    def metrics(self) -> Metrics:
        """Its instruments."""
        ...


class PrometheusCollector:
    """Shows producers and consumers to a registry of ``prometheus-client``.

    Instruments of several of them are added up, but for gauges: of these the largest counts.

    Args:
        sources: Producers and consumers of one queue; for two queues, register two collectors.
        labels: Put on every sample, to tell queues apart: ``{"queue": "orders"}``.

    Raises:
        ImportError: The package is not installed.
    """

    def __init__(self, *sources: HasMetrics, labels: Mapping[str, str] | None = None) -> None:
        import prometheus_client.metrics_core as core  # noqa: PLC0415 (an extra)

        self._core = core
        self._sources = sources
        self._labels = dict(labels or {})

    def describe(self) -> list[Any]:
        """Return nothing: names are not checked against other collectors when registering."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield a family for each instrument that a source has."""
        taken = [(source.metrics.role, source.metrics.snapshot()) for source in self._sources]
        for name, instrument in INSTRUMENTS.items():
            values: dict[Role, list[Any]] = {}
            for role, snapshot in taken:
                if name in snapshot:
                    values.setdefault(role, []).append(snapshot[name])
            if values:
                yield self._family(name, instrument, values)

    def _family(
        self,
        name: str,
        instrument: Instrument,
        values: Mapping[Role, list[Any]],
    ) -> Any:
        kinds = {
            "counter": self._core.CounterMetricFamily,
            "gauge": self._core.GaugeMetricFamily,
            "histogram": self._core.HistogramMetricFamily,
        }
        names = [*self._labels, *(["role"] if len(instrument.roles) > 1 else [])]
        family = kinds[instrument.kind](name.replace(".", "_"), instrument.help, labels=names)
        for role, found in values.items():
            labels = [*self._labels.values(), role][: len(names)]
            if instrument.kind == "histogram":
                _add_histogram(family, labels, found)
            else:
                value = sum(found) if instrument.kind == "counter" else max(found)
                family.add_metric(labels, value)
        return family


def _add_histogram(family: Any, labels: list[str], found: list[Any]) -> None:
    counts = [sum(column) for column in zip(*(each.buckets for each in found), strict=True)]
    buckets = [(f"{bound:g}", count) for bound, count in zip(BUCKETS_S, counts, strict=True)]
    buckets.append(("+Inf", sum(each.count for each in found)))
    family.add_metric(labels, buckets, sum_value=sum(each.sum for each in found))
