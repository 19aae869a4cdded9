"""The collector that a consumer runs beside itself: a pass at each interval, for as long as it may.

Its errors are logged and counted, and never a caller's: what one pass could not do, the next one
tries again. It ends when a newer consumer has taken over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from walengine.buffer._environment import Environment
from walengine.buffer._queue import Queue, Snapshot
from walengine.buffer.collector._pass import Collection, Pass
from walengine.buffer.config import ConsumerConfig
from walengine.buffer.errors import FencedError, QueueError
from walengine.buffer.metrics import Metrics

__all__ = ["Collector", "SteadyClock"]

log = logging.getLogger("walengine.buffer")


class Collector:
    """Runs passes.

    Args:
        queue: Whose objects.
        read: Reads the manifest; raises if it is not the caller's any more.
        config: Has the interval and the grace period.
        metrics: Counts what is deleted.
        clock: The time that objects are judged by; begun when the store's clock was read.

    Attributes:
        passes: How many passes have ended, with an error or without.
        problem: What keeps passes from deleting anything, a sentence, or None.
    """

    def __init__(
        self,
        queue: Queue,
        read: Callable[[], Awaitable[Snapshot]],
        config: ConsumerConfig,
        metrics: Metrics,
        clock: SteadyClock,
    ) -> None:
        self.passes = 0
        self.problem: str | None = None
        self._queue = queue
        self._read = read
        self._interval_s = config.gc_interval_s
        self._grace_ms = grace_ms(config)
        self._metrics = metrics
        self._clock = clock

    async def run_forever(self) -> None:
        """Run a pass at each interval, until the consumer is fenced."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.run_once()
            except FencedError:
                return
            except QueueError as error:
                self._complain(str(error))
            except Exception as error:
                # A mistake in here must not end collecting in silence.
                log.exception("%s: collector", self._queue.name)
                self.problem = repr(error)
            finally:
                self.passes += 1

    async def run_once(self) -> Collection:
        """Run a pass; raises as ``Pass.run`` does."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        one = Pass(self._queue, self._read, now_ms=self._clock.now_ms(), grace_ms=self._grace_ms)
        found = await one.run()
        self._metrics.observe("buffer.gc_duration_seconds", loop.time() - began_s)
        self._metrics.count("buffer.gc_files_deleted", len(found.deleted))
        self._metrics.count("buffer.gc_files_failed", len(found.failed))
        if found.failed:
            self._complain(f"{len(found.failed)} objects were not deleted: {found.failed[0][1]}")
        elif found.refused:
            self._complain(found.refused)
        else:
            self.problem = None
        return found

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s: collector: %s", self._queue.name, problem)
        self.problem = problem


class SteadyClock:
    """The wall clock, but never faster than time passes.

    A machine's clock that is set forward makes every object look old at once, and the correction
    by the store's clock, found at opening, wrong. Backward it only makes collecting late.
    """

    def __init__(self, environment: Environment) -> None:
        self._wall_ms = environment.wall_ms
        self._began_ms = environment.wall_ms()
        self._began_s = asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """Return the time, in ms since 1970."""
        passed_s = asyncio.get_running_loop().time() - self._began_s
        return min(self._wall_ms(), self._began_ms + int(passed_s * 1000))


def grace_ms(config: ConsumerConfig) -> int:
    """Return the grace period in ms."""
    return round(config.gc_grace_period_s * 1000)
