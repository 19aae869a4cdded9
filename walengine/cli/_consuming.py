"""The loop of ``buffer consume``: batches in order, each put away before it is acked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from walengine.buffer import (
    AsyncConsumer,
    AsyncDatabaseSink,
    BatchDescriptor,
    BatchMissingError,
    ConsumedBatch,
    ConsumerConfig,
    DatabaseError,
    FormatError,
    ObjectTooLargeError,
    SequenceGapError,
)
from walengine.buffer._environment import open_environment
from walengine.buffer._queue import Queue
from walengine.cli._formats_queue import Format
from walengine.cli._presence import Presence, refuse_active
from walengine.cli._run import TerminatedError, write_output
from walengine.cli._show import counted
from walengine.cli._target import EntryError, Target, sink_of

AT_ONCE = 8
POLL_S = 0.1

# What a batch can be that never gets better by itself.
UNUSABLE = (BatchMissingError, FormatError, ObjectTooLargeError)


class Request(NamedTuple):
    """What the options of ``consume`` say.

    Attributes:
        config: Which queue.
        target: Where to; None: standard output.
        name: Of the stored position, or None.
        form: How entries are written to standard output.
        drain: End when the queue is empty.
        take_over: Do not ask whether a consumer is active.
        skips: Sequences that are passed over.
        allow_gap: As for ``AsyncConsumer``.
    """

    config: ConsumerConfig
    target: Target | None
    name: str | None
    form: Format
    drain: bool
    take_over: bool
    skips: frozenset[int]
    allow_gap: bool


@dataclass
class Tally:
    """What came of it.

    Attributes:
        batches: Batches put away and acked.
        entries: Entries in them.
        rows: Rows written to a database.
        duplicates: Batches that were in the database already.
        skipped: Batches passed over.
    """

    batches: int = 0
    entries: int = 0
    rows: int = 0
    duplicates: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{counted(self.batches, 'batch')}, {counted(self.entries, 'entry')} consumed"


def run_consumer(request: Request) -> Tally:
    """Consume until the queue is empty, or for ever.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGTERM (TerminatedError); what was put away is acked.
        QueueError: Something failed; what was put away is acked, if the store lets it.
    """
    tally = Tally()
    try:
        asyncio.run(_consume(request, tally))
    except asyncio.CancelledError:
        terminated = TerminatedError()
        terminated.add_note(str(tally))
        raise terminated from None
    except BaseException as error:
        if tally.batches:
            error.add_note(str(tally))
        raise
    return tally


async def _consume(request: Request, tally: Tally) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (asyncio.run's)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    config = request.config
    async with AsyncExitStack() as stack:
        environment = await open_environment(config.object_store)
        stack.push_async_callback(environment.aclose)
        queue = Queue(environment, config)
        if not request.take_over:
            await refuse_active(queue, environment)
        sink = None
        start = None
        if request.target is not None:
            sink = sink_of(request.target, queue.name, request.name)
            try:
                await stack.enter_async_context(sink)
            except DatabaseError as error:
                if not request.target.create:
                    error.add_note("if it is the table that is missing: --create makes it")
                raise
            start = await sink.start_sequence()
        consumer = AsyncConsumer(
            config, start, allow_gap=request.allow_gap, environment=environment
        )
        try:
            await stack.enter_async_context(consumer)
        except SequenceGapError as error:
            error.add_note("--allow-gap goes on without the batches that are gone")
            raise
        await stack.enter_async_context(Presence(queue, environment, consumer.epoch))
        if sink is not None and consumer.last_acked_sequence not in {None, start}:
            # A gap that was allowed: the sink has to step over it too.
            await sink.skip(consumer.last_acked_sequence or 0)
        put = _writer(request, sink, tally)
        await _loop(request, consumer, sink, put, tally)


def _writer(
    request: Request, sink: AsyncDatabaseSink | None, tally: Tally
) -> Callable[[ConsumedBatch], Awaitable[None]]:
    async def to_output(batch: ConsumedBatch) -> None:
        write_output(request.form(batch))

    async def to_sink(batch: ConsumedBatch) -> None:
        assert sink is not None  # noqa: S101 (to_output is for that)
        try:
            await sink.write(batch)
        except EntryError as error:
            error.add_note(f"or --skip {batch.sequence} leaves this batch out, for good")
            raise
        stats = sink.stats()
        tally.rows, tally.duplicates = stats.rows, stats.duplicates

    return to_output if sink is None else to_sink


async def _loop(
    request: Request,
    consumer: AsyncConsumer,
    sink: AsyncDatabaseSink | None,
    put: Callable[[ConsumedBatch], Awaitable[None]],
    tally: Tally,
) -> None:
    """Put batches away, until there are no more, if that is wanted."""
    skipping = _Skipping(request.skips, consumer, sink, tally)
    while True:
        descriptors = await skipping.descriptors()
        if not descriptors:
            await consumer.flush()
            if request.drain:
                return
            await asyncio.sleep(POLL_S)
            continue
        async with _fetching(consumer, descriptors) as fetches:
            for descriptor, fetch in zip(descriptors, fetches, strict=True):
                if await skipping.passed_over(descriptor.sequence):
                    continue
                batch = await fetch
                await put(batch)
                await consumer.ack(batch.sequence)
                tally.batches += 1
                tally.entries += len(batch.entries)


class _Skipping:
    """Passes over the batches that --skip names.

    Args:
        sequences: Theirs.
        consumer: Who is told.
        sink: Who is told too, or None.
        tally: Where they are counted.
    """

    def __init__(
        self,
        sequences: frozenset[int],
        consumer: AsyncConsumer,
        sink: AsyncDatabaseSink | None,
        tally: Tally,
    ) -> None:
        self._sequences = sequences
        self._consumer = consumer
        self._sink = sink
        self._tally = tally

    async def descriptors(self) -> list[BatchDescriptor]:
        """Return where the next batches are; an entry of the manifest may be broken too."""
        while True:
            try:
                return await self._consumer.next_descriptors(AT_ONCE)
            except UNUSABLE as error:
                if error.sequence is None or not await self.passed_over(error.sequence):
                    error.add_note(_hint(error.sequence))
                    raise

    async def passed_over(self, sequence: int) -> bool:
        """Pass over this batch if it is named."""
        if sequence not in self._sequences:
            return False
        await self._consumer.skip(sequence, "walengine buffer consume --skip")
        if self._sink is not None:
            await self._sink.skip(sequence)
        await self._consumer.ack(sequence)
        self._tally.skipped += 1
        return True


@asynccontextmanager
async def _fetching(
    consumer: AsyncConsumer, descriptors: list[BatchDescriptor]
) -> AsyncIterator[list[Awaitable[ConsumedBatch]]]:
    """Fetch all of them at once; what is still under way at the end is cancelled."""
    handle = consumer.fetch_handle()

    async def fetch(descriptor: BatchDescriptor) -> ConsumedBatch:
        try:
            return await handle.fetch(descriptor)
        except UNUSABLE as error:
            error.add_note(_hint(descriptor.sequence))
            raise

    tasks = [asyncio.create_task(fetch(descriptor)) for descriptor in descriptors]
    try:
        yield list(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _hint(sequence: int | None) -> str:
    if sequence is None:
        return "see docs/BUFFER.md, operations"
    return f"if it cannot be had any more: --skip {sequence} leaves it out, for good"
