"""The way of a call through the producer: accepted, in the open batch, in line, in the queue.

    take ──▶ inbox ──▶ open batch ──seal──▶ line of sealed batches ──▶ listed ──▶ durable
             only while the open batch       each is uploaded by a       one task appends
             is full and no slot is free     task of its own             the front of the line

Everything happens on one event loop, and nothing in here awaits between looking and changing. Calls
that find no room wait in the order they came, and the first of them is let in by whoever makes
room. An accepted call is decided exactly once: durable, or failed together with all behind it.

The log in front of the queue, once there is one, has its place here: what it holds enters at
``take`` and ``_seal_batch``, where boundaries and identities are settled before any upload.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from walengine.buffer._queue import Queue
from walengine.buffer.config import ProducerConfig
from walengine.buffer.errors import QueueError
from walengine.buffer.metrics import Metrics
from walengine.buffer.producer._append import Appender
from walengine.buffer.producer._counters import Counters
from walengine.buffer.producer._failing import Failing, as_queue_error
from walengine.buffer.producer._forming import Batch
from walengine.buffer.producer._held import Held
from walengine.buffer.producer._input import Input, Limits
from walengine.buffer.producer._late import look_after
from walengine.buffer.producer._names import Names
from walengine.buffer.producer._outcome import Failure, Outcome
from walengine.buffer.producer._room import Room
from walengine.buffer.producer._tasks import Tasks
from walengine.buffer.producer._upload import Uploader
from walengine.buffer.producer._verdict import Listed
from walengine.buffer.producer._waiting import Waiting

__all__ = ["Pipeline", "limits_of"]

log = logging.getLogger("walengine.buffer")

LISTING_SHARE: Final = 4
"""A batch may take this part of the largest manifest, so that several fit."""


def limits_of(config: ProducerConfig) -> Limits:
    """Return what one call may bring."""
    return Limits(
        max_batch_bytes=config.max_batch_bytes,
        max_buffered_bytes=config.max_buffered_bytes,
        max_listing_bytes=config.max_manifest_bytes // LISTING_SHARE,
    )


class Pipeline:
    """What an open producer does.

    Args:
        config: How.
        queue: Where; open.

    Attributes:
        held: What is accepted and undecided.
        room: How much that is, and may be.
        counters: What was counted.
        metrics: The same under OpenData's names, and more.
        loop: Where all of it happens.
        lost: Calls, and entries in them, that were given up because the interpreter goes down.
    """

    def __init__(self, config: ProducerConfig, queue: Queue) -> None:
        self.queue = queue
        self.loop = asyncio.get_running_loop()
        self.held = Held(limits_of(config), config.flush_size_bytes)
        self.room = Room(config.max_buffered_inputs, config.max_buffered_bytes)
        self.counters = Counters()
        self.metrics = Metrics("producer")
        self._config = config
        self._wall_ms = queue.environment.wall_ms
        self._names = Names(queue.environment, config.data_path_prefix)
        self._uploader = Uploader(
            queue, self._names, config.batch_compression, self.metrics, self.counters
        )
        self._appender = Appender(self, queue, self._names, self.metrics, self.counters)
        self._append_task: asyncio.Task[None] | None = None
        self._tasks = Tasks(self._on_error, self._on_shutdown)
        self._late_tasks = Tasks(self._on_error, self._on_shutdown)
        # Else a long flush_interval would have a batch fail before anything was tried.
        self._open_max_s = min(config.flush_interval_s, config.delivery_timeout_s / 2)
        self._waiting = Waiting(self.room, self._advance)
        self._failing = Failing(config, queue.name)
        self.lost = (0, 0)
        self._flush_through = 0
        self._is_old = False
        self._age_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None

    # ---- calls in --------------------------------------------------------------------------------

    async def take(self, call: Input) -> None:
        """Wait for room, then accept the call; nothing is awaited once it is in.

        Raises:
            QueueError: Earlier calls have failed, and nobody was told yet.
        """
        self._failing.raise_unseen()
        if self._waiting.must_wait(call):
            async with self._waiting.turn(call):
                self._failing.raise_unseen()
                self._accept(call)
        else:
            self._accept(call)

    def _accept(self, call: Input) -> None:
        call.accepted_at = self.loop.time()
        call.accepted_ms = self._wall_ms()
        self.counters.calls_accepted += 1
        call.number = self.counters.calls_accepted
        self.room.bytes += call.size_bytes
        self._waiting.note_accepted(call.accepted_at)
        if self.held.inbox or not self.held.open_batch.takes(call):
            self.held.inbox.append(call)
            self.room.inputs += 1
        else:
            self._add(call)
            if not self.held.open_batch.is_full:
                return
        self._advance()

    def _add(self, call: Input) -> None:
        batch = self.held.open_batch
        batch.add(call)
        if batch.first_number == call.number:
            self._start_timers(call.accepted_at)

    # ---- batches on ------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Seal what is due while there are slots, fill the open batch, let calls in."""
        while True:
            while self.held.inbox and self.held.open_batch.takes(self.held.inbox[0]):
                self.room.inputs -= 1
                self._add(self.held.inbox.popleft())
            if len(self.held.line) >= self._config.max_inflight_batches or not self._is_due():
                break
            self._seal_batch()
        self._waiting.let_first_in()

    def _is_due(self) -> bool:
        batch = self.held.open_batch
        return bool(batch) and (
            bool(self.held.inbox)  # the next call does not fit
            or batch.is_full
            or batch.first_number <= self._flush_through
            or self._is_old
            or self._waiting.first_lacks_bytes()
        )

    def seal(self) -> None:
        """Write what was accepted so far as soon as there are slots, however young it is."""
        self._flush_through = self.counters.calls_accepted
        self._advance()

    def _seal_batch(self) -> None:
        batch = Batch(self.held.open_batch, self._names.new_identity(), self.loop.time())
        self.held.new_batch()
        self._is_old = False
        if self._age_timer is not None:
            self._age_timer.cancel()
            self._age_timer = None
        self.held.line.append(batch)
        self._tasks.spawn(self._upload, batch)

    async def _upload(self, batch: Batch) -> None:
        await self._uploader.upload(batch)
        self._start_append()

    def _start_append(self) -> None:
        if self._append_task is None and self._appender.has_work:
            self._append_task = self._tasks.spawn(self._appender.run)
            self._append_task.add_done_callback(self._append_ended)

    def _append_ended(self, task: asyncio.Task[None]) -> None:
        if self._append_task is task:
            self._append_task = None
            if not task.cancelled():
                self._start_append()  # what was stored in the meantime

    # ---- what the appender tells -----------------------------------------------------------------

    def renew(self, batch: Batch) -> None:
        """Upload the batch again, under a new name."""
        batch.name = None
        self._tasks.spawn(self._upload, batch)

    def listed(self, batch: Batch, listed: Listed) -> None:
        """The batch is in the queue."""
        self.held.line.remove(batch)
        if listed.is_gone or self._names.is_young(batch, listed.location):
            self._durable(batch)
        else:
            self.counters.listed_late += 1
            self.held.late.add(batch)
            self._late_tasks.spawn(self._look_after, batch, listed.location)
        self._advance()

    def hold_up(self, is_full: bool) -> None:
        """Keep new calls out while the manifest has no room."""
        if self.room.manifest_is_full != is_full:
            if is_full:
                log.warning(
                    "%s: the manifest has no room for the next batch, the consumer is behind; "
                    "calls wait until it has caught up",
                    self.queue.name,
                )
            self.room.manifest_is_full = is_full
            self._waiting.let_first_in()

    async def _look_after(self, batch: Batch, location: str) -> None:
        try:
            async with asyncio.timeout(self._failing.late_timeout_s):
                await look_after(self.queue, batch, location, self.counters)
        except TimeoutError:
            self._late_failed(batch)
        except Exception as error:
            batch.error = error
            self._late_failed(batch)
            raise
        else:
            self.held.late.discard(batch)
            self._durable(batch)

    def _late_failed(self, batch: Batch) -> None:
        self.held.late.discard(batch)
        self.room.bytes -= batch.size_bytes
        self._give_up(batch.outcomes, self._failing.of_late(batch))
        self._advance()

    def _durable(self, batch: Batch) -> None:
        now = self.loop.time()
        self.room.bytes -= batch.size_bytes
        self.metrics.count("buffer.batches_flushed")
        self.metrics.count("buffer.entries_flushed", batch.entry_count)
        self.metrics.count("buffer.bytes_flushed", batch.size_bytes)
        self.metrics.observe("buffer.flush_duration_seconds", now - batch.sealed_at)
        batch.data = None
        for outcome in batch.outcomes:
            outcome.succeed()
        self._advance()

    # ---- time ------------------------------------------------------------------------------------

    def _start_timers(self, opened_at: float) -> None:
        self._age_timer = self.loop.call_at(opened_at + self._open_max_s, self._on_age)
        if self._deadline_timer is None:
            self._deadline_timer = self.loop.call_at(
                opened_at + self._config.delivery_timeout_s, self._on_deadline
            )

    def _on_age(self) -> None:
        self._age_timer = None
        self._is_old = True
        self._advance()

    def _on_deadline(self) -> None:
        """Fail everything if the oldest call is too old; else look again when it will be."""
        self._deadline_timer = None
        oldest = self.held.oldest_accepted_at()
        if oldest is None:
            return
        deadline = oldest + self._config.delivery_timeout_s
        if self.loop.time() < deadline:
            self._deadline_timer = self.loop.call_at(deadline, self._on_deadline)
            return
        self.fail_all(None)

    # ---- the end ---------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until every call accepted so far is decided; raise if one of them failed."""
        self.seal()
        outcomes = self.held.last_outcomes()
        for outcome in outcomes:
            await outcome.decided()
        self._failing.raise_unseen()
        for outcome in outcomes:
            outcome.result()

    def fail_all(self, cause: QueueError | None, *, is_told: bool = False) -> None:
        """Give up everything that is accepted and not listed.

        Args:
            cause: Why; None: the oldest call is older than delivery_timeout.
            is_told: Somebody is told anyway: neither the log nor the next call needs to.
        """
        told = self._failing.of_event(cause, *self.held.count(), self.held.newest_error())
        clear, unclear = self.held.split(self._appender.attempts)
        told.clear.event.was_seen = is_told
        self._stop_timers()
        self._tasks.cancel()
        self._append_task = None
        self._appender.forget()
        self.held.clear()
        self._is_old = False
        self.room.reset(sum(batch.size_bytes for batch in self.held.late))
        self._give_up(unclear, told.unclear)
        self._give_up(clear, told.clear)
        self._advance()

    def _give_up(self, outcomes: list[Outcome], failure: Failure) -> None:
        if not outcomes:
            return
        for outcome in outcomes:
            outcome.fail(failure)
        self.counters.calls_failed += len(outcomes)
        self._failing.note(failure)

    def fail_late(self) -> None:
        """Give up looking after what was listed late."""
        self._late_tasks.cancel()
        for batch in list(self.held.late):
            self._late_failed(batch)

    @property
    def calls_waiting(self) -> int:
        """How many calls wait for room."""
        return len(self._waiting)

    def raise_unseen(self) -> None:
        """Raise a failure that no caller has met, if there is one."""
        self._failing.raise_unseen()

    def refuse(self, error: QueueError) -> None:
        """Refuse those who wait for room, and whoever comes."""
        self._waiting.refuse(error)

    def allow(self) -> None:
        """Refuse no longer."""
        self._waiting.allow()

    async def stop(self) -> None:
        """Cancel what runs, and wait for it."""
        self._stop_timers()
        await self._tasks.stop()
        await self._late_tasks.stop()

    def _stop_timers(self) -> None:
        for timer in (self._age_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        self._age_timer = self._deadline_timer = None

    def _on_error(self, error: Exception) -> None:
        """An error that the task it ended could not deal with is everybody's."""
        self.fail_all(as_queue_error(error, self.queue.name))

    def _on_shutdown(self) -> None:
        """The interpreter is going down: nobody is to wait for what cannot come any more."""
        calls, entries = self.held.count()
        self.lost = (self.lost[0] + calls, self.lost[1] + entries)
        error = QueueError(f"{self.queue.name}: the interpreter is going down")
        self.refuse(error)
        self.fail_all(error, is_told=True)
        self.fail_late()
