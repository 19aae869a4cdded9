"""Metrics: what is counted, under which names, and what Prometheus is shown."""

import importlib
import re

import pytest
from fed_queue import TestQueue, opened
from needs import needs_package

from walengine.buffer.metrics import (
    BUCKETS_S,
    INSTRUMENTS,
    HistogramSnapshot,
    Metrics,
    PrometheusCollector,
)


class Source:
    def __init__(self, role):
        self.metrics = Metrics(role)


def exposed(*sources, **options) -> dict[str, float]:
    """Sample -> value, as a registry would show them."""
    needs_package("prometheus_client")
    prometheus_client = importlib.import_module("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    registry.register(PrometheusCollector(*sources, **options))
    text = prometheus_client.generate_latest(registry).decode()
    samples = re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in samples}


def test_each_side_has_its_own_and_all_begin_at_0():
    for role in ("producer", "consumer"):
        snapshot = Metrics(role).snapshot()
        assert set(snapshot) == {
            name for name, instrument in INSTRUMENTS.items() if role in instrument.roles
        }
        numbers = [value for value in snapshot.values() if not isinstance(value, HistogramSnapshot)]
        assert set(numbers) == {0}


def test_what_is_not_known_is_an_error():
    metrics = Metrics("producer")
    for call in (lambda: metrics.count("buffer.acks"), lambda: metrics.set("buffer.acks", 1),
                 lambda: metrics.observe("buffer.gc_duration_seconds", 1)):  # fmt: skip
        with pytest.raises(KeyError):
            call()


def test_counters_add_up_and_gauges_are_set():
    metrics = Metrics("consumer")
    metrics.count("buffer.acks")
    metrics.count("buffer.acks", 4)
    metrics.set("buffer.queue_length", 7)
    metrics.set("buffer.queue_length", 3)
    before = metrics.snapshot()
    metrics.count("buffer.acks")
    assert (before["buffer.acks"], before["buffer.queue_length"]) == (5, 3)


def test_a_histogram_counts_what_is_at_most_each_bound():
    metrics = Metrics("consumer")
    for value_s in (0.001, 0.0011, 0.3, 1000.0):
        metrics.observe("buffer.fetch_duration_seconds", value_s)
    found = metrics.snapshot()["buffer.fetch_duration_seconds"]
    assert found.count == 4
    assert found.sum == pytest.approx(1000.3021)
    assert found.mean == pytest.approx(1000.3021 / 4)
    at = dict(zip(BUCKETS_S, found.buckets, strict=True))
    assert (at[0.001], at[0.0025], at[0.25], at[0.5], at[60.0]) == (1, 2, 2, 3, 3)
    assert metrics.snapshot()["buffer.gc_duration_seconds"].mean == 0


def test_prometheus_gets_all_of_them_added_up():
    producer, one, two = Source("producer"), Source("consumer"), Source("consumer")
    producer.metrics.count("buffer.manifest_writes", 2)
    one.metrics.count("buffer.manifest_writes", 3)
    for source, length in ((one, 5), (two, 2)):
        source.metrics.count("buffer.acks", length)
        source.metrics.set("buffer.queue_length", length)
        source.metrics.observe("buffer.gc_duration_seconds", length / 10)
    shown = exposed(producer, one, two)
    assert shown["buffer_acks_total"] == 7
    assert shown["buffer_queue_length"] == 5
    assert shown['buffer_manifest_writes_total{role="producer"}'] == 2
    assert shown['buffer_manifest_writes_total{role="consumer"}'] == 3
    assert shown["buffer_gc_duration_seconds_count"] == 2
    assert shown["buffer_gc_duration_seconds_sum"] == pytest.approx(0.7)
    assert shown['buffer_gc_duration_seconds_bucket{le="0.25"}'] == 1
    assert shown['buffer_gc_duration_seconds_bucket{le="+Inf"}'] == 2


def test_labels_of_the_callers_are_on_every_sample():
    shown = exposed(Source("consumer"), labels={"queue": "orders"})
    assert all('queue="orders"' in name for name in shown)
    assert shown['buffer_manifest_writes_total{queue="orders",role="consumer"}'] == 0


def test_what_no_source_has_is_not_shown():
    assert "buffer_acks_total" not in exposed(Source("producer"))


def test_a_consumer_counts(run):
    async def scenario():
        queue = TestQueue()
        locations = await queue.add(3, entries=[b"a", b"bc"])
        async with opened(queue) as consumer:
            await consumer.next_descriptors(1)
            await consumer.next_batch()
            await consumer.ack_through(1)
            metrics = consumer.stats().metrics
            batch = await queue.store.get(locations[1])
        assert metrics["buffer.batches_collected"] == 1
        assert metrics["buffer.entries_collected"] == 2
        assert metrics["buffer.bytes_collected"] == len(batch.data)
        assert metrics["buffer.fetch_duration_seconds"].count == 1
        assert metrics["buffer.acks"] == 2
        assert metrics["buffer.queue_length"] == 1
        assert metrics["buffer.manifest_writes"] == 2
        assert metrics["buffer.consumer_lag_seconds"] > 1_000_000_000

    run(scenario())
