"""Producer: the same for threads; the asynchronous one runs on a loop in a thread of its own."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from walengine.buffer._environment import Environment
from walengine.buffer._loop_thread import LoopThread
from walengine.buffer.config import ProducerConfig
from walengine.buffer.errors import QueueError
from walengine.buffer.metrics import Metrics
from walengine.buffer.producer._input import Input
from walengine.buffer.producer._pipeline import limits_of
from walengine.buffer.producer.asynchronous import AsyncProducer
from walengine.buffer.producer.handle import Watcher, WriteHandle
from walengine.buffer.producer.stats import ProducerStats

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Producer"]

log = logging.getLogger("walengine.buffer")


class Producer:
    """The synchronous twin of ``AsyncProducer``: the same promises, for any number of threads.

    A call costs a hand-over to the loop's thread and back, about 0.1 ms: hand over many entries at
    once, or use the asynchronous one.

    A wait that Ctrl-C ends cancels no write; whether a ``produce`` that it ended was accepted is
    not known.

    Args:
        config: How and where.
        environment: As for ``AsyncProducer``.

    Example:
        >>> config = ProducerConfig(object_store=ObjectStoreConfig.InMemory("orders"))
        >>> with Producer(config) as producer:
        ...     handle = producer.produce([b"order 1", b"order 2"])
        ...     handle.watcher.await_durable()
        >>> handle.watcher.result()
        True
    """

    def __init__(self, config: ProducerConfig, *, environment: Environment | None = None) -> None:
        self._inner = AsyncProducer(config, environment=environment)
        self._limits = limits_of(config)
        self._thread = LoopThread("Producer")
        weakref.finalize(self, self._thread.stop, wait=False)

    @classmethod
    def open(cls, config: ProducerConfig, *, environment: Environment | None = None) -> Self:
        """Return a producer that is open; raises as ``AsyncProducer.open`` does."""
        return cls(config, environment=environment).__enter__()

    def __enter__(self) -> Self:
        """Open, unless it is open; raises as ``AsyncProducer.open`` does."""
        self._thread.start()
        try:
            self._thread.run(self._inner.__aenter__)
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block is not covered by one of closing."""
        try:
            self.close()
        except QueueError as closing:
            if error is None:
                raise
            log.warning("%s: closing failed too: %s", self.config.manifest_path, closing)

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Refuse further calls, flush, and release the store; a second call does nothing.

        Args:
            timeout: As for ``AsyncProducer.aclose``.

        Raises:
            QueueError: As there.
        """
        if not self._thread.is_running:
            return
        try:
            self._thread.run(lambda: self._inner.aclose(timeout))
        finally:
            self._thread.stop()

    def produce(
        self,
        entries: Iterable[ReadableBuffer],
        metadata: ReadableBuffer = b"",
        *,
        timeout: float | timedelta | None = None,
    ) -> WriteHandle[Watcher]:
        """Accept entries, once there is room for them: all or none.

        Args:
            entries: As for ``AsyncProducer.produce``.
            metadata: As there.
            timeout: As there.

        Raises:
            BackpressureError: There was no room in time; nothing was accepted.
            InvalidInputError, TypeError, QueueError: As there.
        """
        call = Input(entries, metadata, self._limits)
        handle = self._thread.run(lambda: self._inner._take(call, timeout))  # noqa: SLF001
        return WriteHandle(handle.ingestion_time_ms, Watcher(call.outcome, self._thread))

    def flush(self) -> None:
        """Wait until everything accepted so far is durable, by whichever thread.

        Raises:
            QueueError: Some of it failed, or an earlier call did and nobody was told.
        """
        self._thread.run(self._inner.flush)

    def _put(self, entries: Iterable[ReadableBuffer], metadata: bytes) -> None:
        """Produce, write at once and wait: what a sink does with a batch of its own."""
        self._thread.run(lambda: self._inner._put(entries, metadata))  # noqa: SLF001

    def conflict_rate(self) -> float:
        """Return the share of appends that another writer of the manifest won, in percent."""
        return self._inner.conflict_rate()

    def stats(self) -> ProducerStats:
        """Return what is held and what was counted."""
        return self._inner.stats()

    @property
    def metrics(self) -> Metrics:
        """The instruments, for a ``PrometheusCollector``."""
        return self._inner.metrics

    @property
    def config(self) -> ProducerConfig:
        """How it was set up."""
        return self._inner.config

    def __repr__(self) -> str:
        """Show where it writes and how far it is."""
        return repr(self._inner).replace("AsyncProducer", type(self).__name__, 1)


Producer.__module__ = "walengine.buffer"
