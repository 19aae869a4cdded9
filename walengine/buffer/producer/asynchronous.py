"""AsyncProducer: the producer on an event loop."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from walengine.buffer import durations
from walengine.buffer._environment import Environment, open_environment
from walengine.buffer._queue import Queue
from walengine.buffer.config import GRACE_PERIOD_MIN, ProducerConfig
from walengine.buffer.errors import (
    BackpressureError,
    ObjectTooLargeError,
    QueueError,
)
from walengine.buffer.metrics import Metrics
from walengine.buffer.producer._ends import flushed, may_fork, warn
from walengine.buffer.producer._input import Input
from walengine.buffer.producer._pipeline import Pipeline, limits_of
from walengine.buffer.producer.handle import AsyncWatcher, WriteHandle
from walengine.buffer.producer.stats import ProducerStats, stats_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AsyncProducer"]

log = logging.getLogger("walengine.buffer")

SKEW_WARNING_MS: Final = GRACE_PERIOD_MIN.total_seconds() * 1000 / 4
"""A quarter of the shortest grace period that a consumer can have."""


class AsyncProducer:
    """Puts entries into a queue: batches in an object store, listed in one manifest.

    It belongs to the event loop that opened it and is not thread-safe; ``Producer`` is. The order
    of calls is the order in the queue. A batch that is not durable within ``delivery_timeout``
    fails, and all behind it: their watchers raise, and so does the next ``produce`` or ``flush`` if
    nobody had met the failure before.

    Nothing is kept on disk: what is not durable when the process ends is lost, and the watcher
    never said otherwise. A producer that nobody closed is a ResourceWarning with the count.

    Args:
        config: How and where.
        environment: A store, a clock and chance, for tests and embedding; None: opened from the
            configuration, and closed with the producer.

    Example:
        >>> config = ProducerConfig(object_store=ObjectStoreConfig.InMemory("orders"))
        >>> async def main():
        ...     async with AsyncProducer(config) as producer:
        ...         handle = await producer.produce([b"order 1", b"order 2"])
        ...         await handle.watcher.await_durable()
        ...         return handle.watcher.result()
        >>> asyncio.run(main())
        True
    """

    def __init__(self, config: ProducerConfig, *, environment: Environment | None = None) -> None:
        if not isinstance(config, ProducerConfig):
            raise TypeError(f"config must be a ProducerConfig, not {type(config).__name__}")
        self._config = config
        self._environment = environment
        self._limits = limits_of(config)
        self._pipeline: Pipeline | None = None
        self._finalizer: weakref.finalize[..., AsyncProducer] | None = None
        self._warnings: list[str] = []
        self._closing: asyncio.Future[None] | None = None
        self._is_closed = False
        self._is_forked = False
        may_fork(self)

    # ---- opening and closing ---------------------------------------------------------------------

    @classmethod
    async def open(cls, config: ProducerConfig, *, environment: Environment | None = None) -> Self:
        """Return a producer that is open.

        Raises:
            PairingError: The prefix belongs to another manifest.
            UnsupportedStoreError: The store ignores a condition, or its package is missing.
            FormatError: The manifest is none.
            StorageError: The store failed, or cannot be reached.
        """
        producer = cls(config, environment=environment)
        await producer._open()
        return producer

    async def __aenter__(self) -> Self:
        """Open, unless it is open; raises as ``open`` does, and QueueError if it was closed."""
        if self._pipeline is None or self._is_closed:
            await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block is not covered by one of closing."""
        try:
            await self.aclose()
        except QueueError as closing:
            if error is None:
                raise
            log.warning("%s: closing failed too: %s", self._config.manifest_path, closing)

    async def aclose(self, timeout: float | timedelta | None = None) -> None:  # noqa: ASYNC109
        """Refuse further calls, flush, and release the store; a second call does nothing.

        Whatever is raised, the producer is closed, unless this is cancelled.

        Args:
            timeout: Seconds, or a timedelta, after which what is not durable is given up; None:
                ``delivery_timeout`` decides.

        Raises:
            StorageError: Something was given up; ``unclear`` as for the watchers.
            QueueError: A failure that no caller has met.
        """
        timeout_s = None if timeout is None else _seconds(timeout)
        while self._closing is not None:  # by another task
            await asyncio.shield(self._closing)
        if self._is_closed or self._is_forked:
            return
        if self._pipeline is None:
            self._is_closed = True
            return
        pipeline = self._opened()
        self._closing = asyncio.get_running_loop().create_future()
        pipeline.refuse(self._closed_error())
        try:
            failure = await flushed(pipeline, timeout_s)
            await pipeline.stop()
            self._is_closed = True
            if self._finalizer is not None:
                self._finalizer.detach()
            await pipeline.queue.aclose()
        except BaseException:
            if not self._is_closed:
                pipeline.allow()
            raise
        finally:
            self._closing.set_result(None)
            self._closing = None
        if failure is not None:
            raise failure

    async def _open(self) -> None:
        if self._is_closed:
            raise self._closed_error()
        environment = self._environment or await open_environment(self._config.object_store)
        queue = Queue(environment, self._config)
        try:
            self._warnings = await queue.pair()
            await _read_if_small(queue)
        except BaseException:
            await queue.aclose()
            raise
        if warning := environment.skew_warning(int(SKEW_WARNING_MS)):
            self._warnings.append(warning)
        self._pipeline = Pipeline(self._config, queue)
        self._finalizer = weakref.finalize(self, warn, self._pipeline, type(self).__name__)

    # ---- use -------------------------------------------------------------------------------------

    async def produce(
        self,
        entries: Iterable[ReadableBuffer],
        metadata: ReadableBuffer = b"",
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109
    ) -> WriteHandle[AsyncWatcher]:
        """Accept entries, once there is room for them: all or none.

        They stay together and in order, in one batch. Cancelling this leaves nothing behind.

        Args:
            entries: Bytes-like objects, one or more; those that can change are copied.
            metadata: Kept in the manifest for the entries of this call.
            timeout: Seconds, or a timedelta, to wait for room; None: as long as it takes.

        Raises:
            BackpressureError: There was no room in time; nothing was accepted.
            InvalidInputError: No entries, or more than a batch can hold; nothing was accepted.
            TypeError: Something is not bytes-like, or a single ``bytes`` is given for entries.
            QueueError: The producer is closed; or earlier calls have failed and nobody was told
                yet: nothing of this one was accepted, and the next call goes on.
        """
        return await self._take(Input(entries, metadata, self._limits), timeout)

    async def _take(
        self,
        call: Input,
        timeout: float | timedelta | None,  # noqa: ASYNC109
    ) -> WriteHandle[AsyncWatcher]:
        pipeline = self._opened()
        if timeout is None:
            await pipeline.take(call)
        else:
            await _take_in_time(pipeline, call, _seconds(timeout))
        return WriteHandle(call.accepted_ms, AsyncWatcher(call.outcome))

    async def flush(self) -> None:
        """Wait until everything accepted so far is durable; the open batch is sealed at once.

        Raises:
            QueueError: Some of it failed, or an earlier call did and nobody was told.
        """
        await self._opened().flush()

    async def _put(self, entries: Iterable[ReadableBuffer], metadata: bytes) -> None:
        """Produce, write at once and wait: what a sink does with a batch of its own."""
        handle = await self.produce(entries, metadata)
        self._opened().seal()
        await handle.watcher.await_durable()

    def conflict_rate(self) -> float:
        """Return the share of appends that another writer of the manifest won, in percent."""
        return self._opened(anywhere=True).counters.conflict_rate()

    def stats(self) -> ProducerStats:
        """Return what is held and what was counted."""
        return stats_of(self._opened(anywhere=True), tuple(self._warnings))

    @property
    def metrics(self) -> Metrics:
        """The instruments, for a ``PrometheusCollector``."""
        return self._opened(anywhere=True).metrics

    @property
    def config(self) -> ProducerConfig:
        """How it was set up."""
        return self._config

    def __repr__(self) -> str:
        """Show where it writes and how far it is."""
        if self._pipeline is None or self._is_closed:
            state = "closed" if self._is_closed else "not open"
        else:
            state = f"{self._pipeline.held.count()[0]} calls undecided"
        url = self._config.object_store.url
        return f"<{type(self).__name__} {url} {self._config.manifest_path}: {state}>"

    def _opened(self, *, anywhere: bool = False) -> Pipeline:
        """Return the pipeline; anywhere: for a look, also when closed and from other threads."""
        pipeline = self._pipeline
        if pipeline is None:
            name = type(self).__name__
            raise QueueError(f"the producer is not open: async with {name}(config), or open()")
        if anywhere:
            return pipeline
        if self._is_forked:
            raise QueueError("the producer is the parent process's: open one in this process")
        if self._is_closed:
            raise self._closed_error()
        if asyncio.get_running_loop() is not pipeline.loop:
            raise QueueError("the producer belongs to another event loop: open one on this one")
        return pipeline

    def _closed_error(self) -> QueueError:
        return QueueError(f"the producer of {self._config.manifest_path} is closed: open another")

    def after_fork_in_child(self) -> None:
        """Refuse from now on: what was accepted is the parent's."""
        self._is_forked = True
        if self._finalizer is not None:
            self._finalizer.detach()


async def _read_if_small(queue: Queue) -> None:
    """Look at the manifest: whether it is broken is to be known now, and if lost, later."""
    try:
        await queue.read_manifest()
    except ObjectTooLargeError:
        return  # produce() waits until the consumer has caught up


async def _take_in_time(pipeline: Pipeline, call: Input, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await pipeline.take(call)
    except TimeoutError:
        raise BackpressureError(
            f"{pipeline.queue.name}: no room within {timeout_s:g} s: {pipeline.room.why_not(call)}"
        ) from None


def _seconds(duration: float | timedelta) -> float:
    return max(0.0, durations.from_code("timeout", duration).total_seconds())


AsyncProducer.__module__ = "walengine.buffer"
