"""The producer: entries in, batches in the store and listed in the manifest, in order.

    with Producer(config) as producer:
        handle = producer.produce([b"order 1", b"order 2"])
        handle.watcher.await_durable()

``_pipeline.py`` is the core. Around it: what one call brings (``_input``, ``_outcome``), who waits
for room (``_room``, ``_waiting``), batches (``_forming``, ``_names``, ``_upload``), the manifest
(``_append`` with the pure ``_group`` and ``_verdict``), what was listed late (``_late``)
and what fails (``_failing``). The two faces are ``asynchronous`` and ``synchronous``.
"""

from walengine.buffer.producer.asynchronous import AsyncProducer
from walengine.buffer.producer.handle import AsyncWatcher, Watcher, WriteHandle
from walengine.buffer.producer.stats import ProducerStats
from walengine.buffer.producer.synchronous import Producer

__all__ = [
    "AsyncProducer",
    "AsyncWatcher",
    "Producer",
    "ProducerStats",
    "Watcher",
    "WriteHandle",
]
