"""Producer: the same for threads; the asynchronous one runs on a loop in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from walengine.buffer._environment import Environment
from walengine.buffer._twin import Twin
from walengine.buffer.config import ProducerConfig
from walengine.buffer.producer._input import Input
from walengine.buffer.producer._pipeline import limits_of
from walengine.buffer.producer.asynchronous import AsyncProducer
from walengine.buffer.producer.handle import Watcher, WriteHandle
from walengine.buffer.producer.stats import ProducerStats

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Producer"]


class Producer(Twin[AsyncProducer]):
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
        super().__init__(AsyncProducer(config, environment=environment))
        self._limits = limits_of(config)

    @classmethod
    def open(cls, config: ProducerConfig, *, environment: Environment | None = None) -> Self:
        """Return a producer that is open; raises as ``AsyncProducer.open`` does."""
        return cls(config, environment=environment).__enter__()

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Refuse further calls, flush, and release the store; a second call does nothing.

        Ctrl-C in here leaves it open: nothing is given up, and it may be called again.

        Args:
            timeout: As for ``AsyncProducer.aclose``.

        Raises:
            QueueError: As there.
        """
        self._close(lambda: self._inner.aclose(timeout))

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
    def config(self) -> ProducerConfig:
        """How it was set up."""
        return self._inner.config


Producer.__module__ = "walengine.buffer"
