"""Sinks: accept items, hold them, write them out in batches, push back when full.

Collect items and hand each batch to a function::

    from walengine.sinks import CallbackSink

    with CallbackSink(100, insert_rows) as sink:
        for row in rows:
            sink.send(row)

What was accepted is never lost by an error: when a write fails, the batch stays buffered in order,
the error reaches the caller, and the next flush tries again. An item whose send raised was not
accepted. The asynchronous twins keep one batch in flight while the next one fills.

Synchronous sinks may be shared by threads; asynchronous ones belong to one event loop.
"""

from walengine.sinks.batch import AsyncBatchSink, BatchSink
from walengine.sinks.callback import AsyncCallbackSink, CallbackSink
from walengine.sinks.errors import BackpressureError, SinkClosedError, SinkError
from walengine.sinks.fan_out import AsyncFanOutSink, FanOutSink
from walengine.sinks.log import AsyncLogSink, LogSink, SinkHandler
from walengine.sinks.options import SinkOptions
from walengine.sinks.producer import AsyncProducerSink, ProducerSink
from walengine.sinks.protocols import AsyncSink, Sink
from walengine.sinks.stats import AsyncStatsSink, SinkStats, StatsSink
from walengine.sinks.wal import AsyncWalSink, WalSink

__all__ = [
    "AsyncBatchSink",
    "AsyncCallbackSink",
    "AsyncFanOutSink",
    "AsyncLogSink",
    "AsyncProducerSink",
    "AsyncSink",
    "AsyncStatsSink",
    "AsyncWalSink",
    "BackpressureError",
    "BatchSink",
    "CallbackSink",
    "FanOutSink",
    "LogSink",
    "ProducerSink",
    "Sink",
    "SinkClosedError",
    "SinkError",
    "SinkHandler",
    "SinkOptions",
    "SinkStats",
    "StatsSink",
    "WalSink",
]
