"""The event loop's half of group commit: who hands over when, and who is told what.

Records are staged by coroutines and handed over once per tick of the loop, in one native call; what
is done is seen in another, when the bell rings. Nothing here waits, and no thread is involved.

Through the page cache there is one sync at a time. While it is at the device the next records stay
staged here: they then go down as one write with its sync behind it. Somebody who waits for the
operating system only, or a full stage, sends them down at once. Past the page cache (``direct_io``)
every tick's records are a group of their own, with many of them at the device.

Python and the device work side by side: what is staged goes down before anybody is told of the
group before it; and where nothing is staged then, half of a large group is told at once and the
rest in the next tick, so that the first half's next records are at the device while the second half
runs.

LSNs are exact because one loop does it all: the records of a hand-over get the numbers behind those
handed over before, and futures are settled in that order, which is the order of durability.
"""

from __future__ import annotations

import logging
import threading
from asyncio import AbstractEventLoop, CancelledError
from collections import deque
from collections.abc import Callable, Sequence
from errno import ENOMEM
from heapq import heappop, heappush

from walengine._native_poll import PolledWriter
from walengine._opening import note_sync
from walengine._refusals import with_loss
from walengine._staging import Run
from walengine.aio._stage import Stage, Waiter, fail, settle_all
from walengine.errors import RecordTooLargeError, WalError, WalPoisonedError
from walengine.types import Lsn

log = logging.getLogger("walengine")

RETRY_SECONDS = 0.05  # until a sync that could not be begun for want of memory is tried again
GONE_MAX = 64  # waits that were given up and are still kept
# Waiters; of fewer, a second group costs more than telling a half first gains. That is so longer
# where one sync waits for the other. (docs/decisions/0020-what-bounds-tasks-and-batches.md)
HALVED_FROM = 200
HALVED_DIRECT_FROM = 32


class Driver:
    """One writer's staged records, what is at the device, and everybody who waits.

    Args:
        path: Directory of the log, for messages.
        polled: The C writer.
        loop: The only loop that calls.
        is_direct: It writes past the page cache.
        last_lsn: Of the newest record that recovery kept.
        early_bytes: So much staged goes down also while a sync is at the device.
        on_poison: Called once with each poisoning, before anybody is told.
    """

    def __init__(
        self,
        path: str,
        polled: PolledWriter,
        loop: AbstractEventLoop,
        last_lsn: Lsn,
        *,
        is_direct: bool,
        early_bytes: int,
        on_poison: Callable[[], None],
    ) -> None:
        self._path = path
        self._polled = polled
        self._loop = loop
        self._is_direct = is_direct
        self._halved_from = HALVED_DIRECT_FROM if is_direct else HALVED_FROM
        self._early_bytes = early_bytes
        self._on_poison = on_poison
        self.poison: WalPoisonedError | None = None
        self.commits = 0  # waits for durability that came true
        self._tick_is_due = False
        # Held while C is called for the loop: the interpreter's exit may come in another thread.
        self._at_work = threading.Lock()
        self._is_over = False
        self.generation = 0  # counts reopenings
        self.resume(last_lsn)

    def resume(self, last_lsn: Lsn) -> None:
        """Begin behind this LSN, which is durable."""
        self.poison = None
        self.generation += 1
        self.handed = last_lsn  # the newest record that C has
        self.durable = last_lsn
        self._goal = last_lsn  # somebody waits until this one is durable, and C has it
        self._goal_since: float | None = None  # when it was set, while it is not reached
        self._is_wanted = False  # staged records are to go down
        self.is_durable_wanted = False  # and to be synced
        self.stage = Stage()  # what coroutines add to; the last of stages
        self.stages: deque[Stage] = deque([self.stage])
        self.staged_bytes = 0
        self._flying: deque[tuple[Lsn, Lsn, list[Waiter | None]]] = deque()
        self._waits: list[tuple[Lsn, int, Waiter]] = []  # a heap: until this LSN is durable
        self._wait_count = 0
        self._gone = 0  # of the waits, given up since the last look

    # ---- what coroutines ask for -----------------------------------------------------------------

    @property
    def staged_count(self) -> int:
        """Records staged."""
        return sum(len(stage.records) for stage in self.stages)

    @property
    def last_lsn(self) -> Lsn:
        """The newest LSN, staged records included."""
        return self.handed + self.staged_count

    def new_stage(self, *, atomic: bool = False, run: Run | None = None) -> Stage:
        """Put a stage behind what is staged: for a group or run, or for what follows one."""
        stage = Stage(atomic=atomic, run=run)
        self.stages.append(stage)
        self.stage = stage
        return stage

    def want(self, *, durable: bool) -> None:
        """Have what is staged handed over in this tick, and synced as soon as may be."""
        self._is_wanted = True
        if durable:
            self.is_durable_wanted = True
        self._schedule()

    def _schedule(self) -> None:
        if not self._tick_is_due:
            self._tick_is_due = True
            self._loop.call_soon(self._tick)

    async def until_durable(self, lsn: Lsn) -> None:
        """Return when everything up to lsn is durable."""
        if lsn <= self.durable:
            self._settle(all_at_once=True)  # in order: others may still have to be told
            return
        try:
            await self._wait_for(lsn)
        except CancelledError:
            self._forget_gone()
            raise

    def _forget_gone(self) -> None:
        """Somebody gave up: on a stuck disk that may happen again and again."""
        self._gone += 1
        if self._gone > GONE_MAX and 2 * self._gone > len(self._waits):
            self._waits = sorted(wait for wait in self._waits if not wait[2].done())
            self._gone = 0

    def _wait_for(self, lsn: Lsn) -> Waiter:
        waiter: Waiter = self._loop.create_future()
        self._push(lsn, waiter)
        if lsn <= self.handed:
            self._aim(lsn)
            self._schedule()
        else:
            self.want(durable=True)
        return waiter

    # ---- ticks -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._tick_is_due = False
        self._go_on(look=False)

    def look(self) -> None:
        """See what is done, and go on: the bell rang."""
        self._go_on(look=True)

    def _go_on(self, *, look: bool) -> None:
        with self._at_work:
            if self.poison is not None or self._is_over:
                return
            try:
                self._see_and_hand_over(look=look)
                self._settle(all_at_once=self._goal > self.durable)
            except WalPoisonedError as error:
                self.poisoned(error)
            except WalError as error:  # nothing was begun, and nobody else would ask again
                log.warning("%s; trying again", error)
                self._loop.call_later(RETRY_SECONDS, self._schedule)
            except MemoryError:
                text = f"{self._path}: out of memory; nothing more was appended"
                self._refuse_staged(WalError(text, path=self._path, errno=ENOMEM))
            except BaseException:  # KeyboardInterrupt: the loop may run again
                self._schedule()
                raise

    def _see_and_hand_over(self, *, look: bool) -> None:
        may = not look and self._is_wanted and self._may_hand_over()
        if not may and (look or self._goal > self.durable):
            self._note_durable(self._polled.poll(self._goal))
            may = self._is_wanted and self._may_hand_over()
        if may:
            self._hand_over()

    def _may_hand_over(self) -> bool:
        if self._is_direct or self._goal <= self.durable:
            return True
        if self.staged_bytes >= self._early_bytes:
            return True
        return any(stage.must_be_handed for stage in self.stages)

    # ---- the hand-over ---------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Hand over what there is room for; settle those who waited for no more than that."""
        if not self.stage.records and len(self.stages) > 1:
            self.stages.pop()  # it was put behind a closed one, and nothing came
        # Past the page cache nothing is handed over before it is synced.
        wants_sync = fused = self.is_durable_wanted or self._is_direct
        if not self._is_direct:
            # A write that goes down with its sync may still be queued when this process dies.
            fused = fused and not any(stage.must_be_handed for stage in self.stages)
        fused = fused and bool(self.stages[-1].records)
        while self.stages:
            is_last = len(self.stages) == 1
            if not self._hand_over_stage(self.stages[0], fused=fused and is_last):
                self._open_stage()
                return
            self.stages.popleft()
        self._open_stage()
        self._is_wanted = self.is_durable_wanted = False
        if wants_sync:
            self._aim(self.handed)
            if not fused:
                self._note_durable(self._polled.poll(self._goal))

    def _open_stage(self) -> None:
        """Have a stage at the end that anybody may add to."""
        if not self.stages or self.stages[-1].is_closed:
            self.new_stage()
        self.stage = self.stages[-1]

    def _hand_over_stage(self, stage: Stage, *, fused: bool) -> bool:
        """Hand over all of it: True; or as much as went, and what is left stays: False."""
        try:
            taken, is_durable, problem = self._make_calls(stage, fused=fused)
        except BaseException:  # an interrupt, or no memory: C knows what it has
            self._note_handed(stage, self._polled.last_lsn() - self.handed)
            raise
        self._note_handed(stage, taken)
        if isinstance(problem, WalPoisonedError):
            raise problem
        if problem is not None:
            self._refuse_staged(problem)
            return False
        if is_durable:
            self._note_durable(self.handed)
        return not stage.records

    def _make_calls(self, stage: Stage, *, fused: bool) -> tuple[int, bool, WalError | None]:
        """Hand over the stage in as many calls as it takes; the last one syncs, if fused."""
        calls = stage.calls()
        taken = 0
        is_durable = False
        problem: WalError | None = None
        for number, (records, crcs) in enumerate(calls, 1):
            handed = self._polled.hand_over(
                records,
                crcs,
                durable=fused and number == len(calls),
                atomic=stage.atomic,
            )
            taken += handed.taken
            is_durable, problem = handed.is_durable, handed.problem
            if handed.taken < len(records) or problem is not None:
                break
        return taken, is_durable, problem

    def _note_handed(self, stage: Stage, taken: int) -> None:
        if taken == 0:
            return
        first = self.handed + 1
        self.handed += taken
        if taken == len(stage.records) and stage is self.stages[-1]:
            self.staged_bytes = 0
        else:
            self.staged_bytes -= stage.bytes_of(taken)
        waiters, marks = stage.cut(taken)
        if any(waiters):
            self._flying.append((first, self.handed, waiters))
        for mark in marks:
            if mark.durable or self._is_direct:
                self._push(first + mark.place, mark.waiter)
                self._aim(first + mark.place)
            else:
                settle_all([(first + mark.place, mark.waiter)])

    def _refuse_staged(self, problem: WalError) -> None:
        """There is no room, or no memory: tell everybody who waits for a staged record."""
        for stage in self.stages:
            stage.refuse(problem)
        if isinstance(problem, RecordTooLargeError) and self.stages[0].atomic:
            self.stages.popleft()  # no trim makes room for it, whether its caller is there or not
        self.stages = deque(stage for stage in self.stages if stage.records)
        self._open_stage()
        self.staged_bytes = sum(stage.bytes_of(len(stage.records)) for stage in self.stages)
        self._is_wanted = self.is_durable_wanted = False
        beyond = [wait for wait in self._waits if wait[0] > self.handed]
        self._waits = sorted(wait for wait in self._waits if wait[0] <= self.handed)
        for _, _, waiter in sorted(beyond):
            fail(waiter, problem)
        if self._flying_waits():
            self._aim(self.handed)
            self._schedule()

    def _flying_waits(self) -> bool:
        """Somebody waits for what was handed over."""
        return bool(self._waits or self._flying)

    # ---- what is durable -------------------------------------------------------------------------

    def _aim(self, lsn: Lsn) -> None:
        if lsn > self._goal:
            if self._goal_since is None and lsn > self.durable:
                self._goal_since = self._loop.time()
            self._goal = lsn

    def _push(self, lsn: Lsn, waiter: Waiter) -> None:
        self._wait_count += 1
        heappush(self._waits, (lsn, self._wait_count, waiter))

    def _note_durable(self, durable: Lsn) -> None:
        if durable > self.durable:
            self.durable = durable
            self._note_slow_sync()

    def _settle(self, *, all_at_once: bool) -> None:
        """Tell everybody up to the durable LSN, in order; or a half, and soon the rest."""
        flying = self._flying
        while flying and flying[0][1] <= self.durable:
            first, last, waiters = flying.popleft()
            if not all_at_once and len(waiters) >= self._halved_from:
                half = len(waiters) // 2
                flying.appendleft((first + half, last, waiters[half:]))
                self._settle_run(first, first + half - 1, waiters[:half])
                self._loop.call_soon(self._settle_rest)
                return
            self._settle_run(first, last, waiters)
        self._settle_waits(self.durable)

    def _settle_rest(self) -> None:
        self._settle(all_at_once=True)

    def _settle_run(self, first: Lsn, last: Lsn, waiters: Sequence[Waiter | None]) -> None:
        """Settle the waiters of first to last, and among them whoever waits for one of these."""
        self._settle_waits(first - 1)
        if not self._waits or self._waits[0][0] >= last:
            self.commits += settle_all(enumerate(waiters, first))
            return
        for lsn, waiter in enumerate(waiters, first):
            self.commits += settle_all([(lsn, waiter)])
            self._settle_waits(lsn)

    def _settle_waits(self, lsn: Lsn) -> None:
        waits = self._waits
        while waits and waits[0][0] <= lsn:
            at, _, waiter = heappop(waits)
            self.commits += settle_all([(at, waiter)])

    def _note_slow_sync(self) -> None:
        if self._goal_since is None or self._goal > self.durable:
            return
        note_sync(self._path, self._loop.time() - self._goal_since)
        self._goal_since = None

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> Sequence[Stage]:
        """Call C no more, whatever the loop's thread does; return what is staged."""
        with self._at_work:
            self._is_over = True
        return [] if self.poison is not None else list(self.stages)

    def end(self, durable: Lsn, problem: WalError) -> None:
        """C is closed: settle what is durable, and tell the others that it is not."""
        self.stop()
        self._note_durable(durable)
        self._settle(all_at_once=True)
        self._fail_everybody(durable, problem)

    # ---- poison ----------------------------------------------------------------------------------

    def poisoned(self, error: WalPoisonedError) -> WalPoisonedError:
        """Tell everybody, once; return the one error of this poisoning."""
        if self.poison is not None:
            return self.poison
        durable = max(self.durable, self._polled.durable_lsn())
        lost = range(durable + 1, self.last_lsn + 1)
        self.poison = with_loss(error, durable, lost)
        self._on_poison()
        self._note_durable(durable)
        self._settle(all_at_once=True)
        self._fail_everybody(durable, self.poison)
        self.stage = Stage()
        self.stages = deque([self.stage])
        self.staged_bytes = 0
        return self.poison

    def _fail_everybody(self, durable: Lsn, problem: WalError) -> None:
        self._fail_flying(durable, problem)
        for stage in self.stages:
            for waiter in stage.everybody():
                fail(waiter, problem)

    def _fail_flying(self, durable: Lsn, problem: WalError) -> None:
        """What lies behind durable failed, and what lies before it in the same run did not."""
        for first, _, waiters in self._flying:
            kept = max(0, durable - first + 1)
            self.commits += settle_all(enumerate(waiters[:kept], first))
            for waiter in waiters[kept:]:
                if waiter is not None:
                    fail(waiter, problem)
        self._flying.clear()
        for _, _, waiter in sorted(self._waits):
            fail(waiter, problem)
        self._waits = []
