"""Staged records and their way into C: the part of a writer that must not lose or swap any.

Two locks, always taken in this order:

- the hand-over lock serialises "take what is staged, then call C", so that the order of calls is
  the order of records. Appends hold it through their native call; commits do not, so the next
  batch fills while a sync is at the device. A thread that has the writer to itself holds nobody
  up: there the last native call of a flush syncs too, so that C writes and syncs as one. Once a
  second thread has come by, a flush hands over, lets the lock go, and then waits.
- the stage lock guards the staged list, its byte count and the writer's state. It is held for a few
  bytecodes, never over a call that waits.

Both locks are re-entrant for the sake of signal handlers, which run between any two bytecodes: one
that stages a record in the middle of another staging does no harm; one that hands over in the
middle of a hand-over is refused, since it would wait for itself.

Lanes. Where nothing is staged or in flight nobody needs the hand-over lock: C gives the LSNs, and
any number of threads append in it at once, each by one native call, in which a durable one waits
too. While lanes are open C says what the last LSN is. Whoever is to give LSNs here, to records that
it stages or brings along, closes them first: from then on C takes nothing from a lane, not even of
a call that is already on its way, and the last LSN stands still. What was refused goes the way of
the others. Hand-overs that find nothing staged, some of them in a row, open lanes again.

A hand-over may be broken anywhere by KeyboardInterrupt, in the wait for its sync too. What it took
stays in ``_flight`` until it is settled: whoever comes next asks C how far it came and puts the
rest back in front. So C's own count decides: no record goes down twice, and none is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum
from time import perf_counter

from walengine import _refusals
from walengine._looking import Looking
from walengine._native_writer import NativeWriter
from walengine._opening import note_sync
from walengine._staging import Run, Staged, pieces, record_bytes
from walengine.config import WalConfig
from walengine.errors import (
    WalError,
    WalFullError,
    WalPoisonedError,
)
from walengine.types import Lsn, RecoveryReport

# So many hand-overs in a row that find nothing staged, and lanes are opened again. That costs two
# native calls; and who stages while others append should go on staging, which costs less.
QUIET_APPENDS = 64

_get_ident = threading.get_ident


class State(IntEnum):
    """Of a writer; poison is apart, since a poisoned writer is still open."""

    OPEN = 0
    CLOSING = 1
    CLOSED = 2
    FORKED = 3


class HandOver(Looking):
    """Base of the writers: staging, hand-over, poison.

    Args:
        path: Directory of the log, for messages.
        native: The C writer.
        is_direct: It writes past the page cache: nothing is handed over before it is synced.
        last_lsn: Of the newest record that recovery kept.
        config: How it was opened.
    """

    def __init__(
        self,
        path: str,
        native: NativeWriter,
        is_direct: bool,
        last_lsn: Lsn,
        config: WalConfig,
    ) -> None:
        self._path = path
        self._native = native
        self._is_direct = is_direct
        self._config = config
        self._record_bytes_max = native.record_bytes_max()
        self._batch_bytes_max = config.io.max_batch_bytes
        # The largest record taken now; -1 when none is. One check covers every refusal.
        self._limit = self._record_bytes_max
        self._poison: WalPoisonedError | None = None
        self._former_poison: WalPoisonedError | None = None  # what the last reopen() cured
        self._handed = last_lsn  # the newest record that C is known to have; old if lanes are open
        self._thread: int | None = None  # the first that handed something over, or had a lane
        self._is_shared = False  # there was another one
        self._is_synced = False  # the last hand-over came back durable
        self._reset()
        self._state = State.OPEN

    def _reset(self) -> None:
        """Make the locks and empty the staging area."""
        self._stage_lock = threading.RLock()
        self._handover_lock = threading.RLock()
        self._handing_over = False
        self._staged: list[Staged] = []
        self._staged_bytes = 0
        self._flight: list[Staged] | None = None  # taken from staging, not yet settled
        # What the caller brings along: goes down behind the flight, and is never staged.
        self._own: Sequence[Staged] = ()
        # Lanes are open: nothing is staged or in flight. C may have them closed still, or already,
        # where an interrupt came in between; it never has them open where this is False.
        self._lanes = False
        self._quiet = 0  # hand-overs to come before lanes are opened

    # ---- the hand-over; its lock is held ---------------------------------------------------------

    def _hand_over(
        self,
        own: Sequence[Staged] = (),
        *,
        durable: bool = False,
        atomic: bool = False,
        closing: bool = False,
    ) -> Lsn:
        """Hand what is staged, then own, to C; return the last LSN.

        With durable, ``_is_synced`` tells whether C synced in the same call. It did not where there
        was nothing to hand over, or where other threads would have had to wait for it.

        With atomic, own goes down as one group: after a crash all of it is there or nothing.

        A failure puts back what C did not take. Of own it does so with a Run, whose records then
        are staged; else own is not taken.
        """
        self._refuse_reentry()
        try:
            self._handing_over = True
            if self._thread != _get_ident():
                self._meet_thread()
            if self._flight is not None:
                self._settle()
            self._take(own, closing=closing)
            try:
                last = self._deliver(durable=durable and not self._is_shared, atomic=atomic)
            except BaseException:
                self._settle()
                raise
            with self._stage_lock:
                self._handed, self._flight, self._own = last, None, ()
        except WalPoisonedError as error:
            raise self._poisoned(error) from None
        finally:
            self._handing_over = False
        return last

    def _hand_over_the_rest(self) -> WalError | None:
        """Hand over what is staged as the last thing; return what went wrong."""
        if self._poison is not None:
            return self._poison
        try:
            self._hand_over(closing=True)
        except WalFullError as error:
            return _refusals.gone(error, len(self._staged))
        except WalError as error:
            return error
        return None

    def _refuse_reentry(self) -> None:
        if self._handing_over:
            raise WalError(
                f"{self._path}: called by a signal handler in the middle of another call; "
                "set a flag in the handler and act on it outside",
                path=self._path,
            )

    def _take(self, own: Sequence[Staged], *, closing: bool) -> None:
        """Move what is staged to the flight; no signal handler runs between the stores."""
        fresh: list[Staged] = []
        with self._stage_lock:
            if self._limit < 0 and not closing:
                raise self._refusal(0)
            if self._lanes:
                self._close_lanes()
            elif self._staged:
                self._quiet = QUIET_APPENDS
            elif self._quiet > 0:
                self._quiet -= 1
            self._flight, self._own = self._staged, own
            self._staged, self._staged_bytes = fresh, 0

    def _deliver(self, *, durable: bool, atomic: bool) -> Lsn:
        """Make the native calls for flight and own, the last one durable; return the last LSN."""
        self._is_synced = False
        batch: Sequence[Staged] = self._flight or ()
        own = self._own
        if own and not atomic and not isinstance(own, Run):
            batch = [*batch, *own]
        calls = list(pieces(batch)) if batch else []
        if isinstance(own, Run):
            calls += [(part, None) for part in own.parts]
        elif atomic:
            calls.append((own, None))  # type: ignore[arg-type]
        if not calls:
            return self._handed
        *early, final = calls
        for records, crcs in early:
            self._deliver_piece(records, crcs)
        if not durable:
            return self._deliver_piece(*final, atomic=atomic)
        begin = perf_counter()
        last = self._deliver_piece(*final, durable=True, atomic=atomic)
        note_sync(self._path, perf_counter() - begin)
        self._is_synced = True
        return last

    def _deliver_piece(
        self,
        records: Sequence[bytes],
        crcs: Sequence[int] | None,
        *,
        durable: bool = False,
        atomic: bool = False,
    ) -> Lsn:
        # A direct append by itself would wait for its sync; in a batch only the last call has to.
        if len(records) == 1 and (durable or not self._is_direct):
            return self._native.append(records[0], crcs[0] if crcs else None, durable=durable)
        return self._native.append_joined(records, crcs, durable=durable, atomic=atomic)

    def _meet_thread(self) -> None:
        if self._thread is None:
            self._thread = _get_ident()
        else:
            self._is_shared = True

    def _settle(self) -> None:
        """Put what C did not take of a broken hand-over back in front of what is staged."""
        handed = int(self._native.position().last_lsn)
        flight = self._flight or []
        if isinstance(self._own, Run):
            flight = [*flight, *self._own]
        rest = flight[handed - self._handed :] if self._poison is None else []
        rest_bytes = sum(map(record_bytes, rest))
        with self._stage_lock:
            joined = rest + self._staged
            self._staged, self._flight, self._own = joined, None, ()
            self._staged_bytes += rest_bytes
            self._handed = handed

    # ---- lanes -----------------------------------------------------------------------------------

    def _open_lanes(self) -> None:
        """Open lanes if nothing is staged or in flight."""
        with self._handover_lock, self._stage_lock:
            if not self._staged and self._flight is None and self._limit >= 0:
                self._lanes = True
                self._tell_lanes()

    def _close_open_lanes(self) -> None:
        with self._stage_lock:
            if self._lanes:
                self._close_lanes()

    def _close_lanes(self) -> None:
        """Have C give no more LSNs; the stage lock is held.

        The second call tells whether a signal handler opened them behind the first, and appended.
        """
        is_still = False
        while not is_still:
            last = self._native.lanes(are_open=False)
            self._handed, self._lanes, self._quiet = last, False, QUIET_APPENDS
            is_still = self._native.lanes(are_open=False) == self._handed

    def _align_lanes(self) -> None:
        """Open in C what is open here: who opened or closed them was interrupted, or is at it."""
        with self._stage_lock:
            if self._lanes:
                self._tell_lanes()

    def _tell_lanes(self) -> Lsn:
        """Bring C in line, with what a signal handler does meanwhile too; return the last LSN."""
        are_told = False
        while not are_told:
            are_open = self._lanes
            last = self._native.lanes(are_open=are_open)
            are_told = are_open == self._lanes
        return last

    # ---- refusals --------------------------------------------------------------------------------

    def _last_lsn(self) -> Lsn:
        """Return the newest LSN given, to staged records too; the stage lock is held."""
        if self._lanes:
            last = self._tell_lanes()
            if self._lanes:
                return last
        flying = len(self._flight or ()) + len(self._own)
        return self._handed + flying + len(self._staged)

    def _check_open(self) -> None:
        if self._state is not State.OPEN:
            raise self._refusal(0)

    def _check_ours(self) -> None:
        """Refuse in the child of a fork only: what a closed writer came to can still be asked."""
        if self._state is State.FORKED:
            raise self._refusal(0)

    def _refusal(self, size: int) -> WalError:
        """Return the reason why nothing, or nothing of this size, is taken."""
        if self._state is State.FORKED:
            return _refusals.forked(self._path)
        if self._state is not State.OPEN:
            return _refusals.closed(self._path)
        if self._poison is not None:
            return self._poison.with_traceback(None)
        return _refusals.too_large(self._path, size, self._config)

    def _poisoned(self, error: WalPoisonedError) -> WalPoisonedError:
        """Return the one error of this poisoning; the first to come makes it.

        What is staged is dropped: its place in the order is gone.
        """
        with self._stage_lock:
            if self._poison is not None:
                return self._poison.with_traceback(None)
            position = self._native.position()
            if self._former_poison is not None and not position.poisoned:
                return self._former_poison.with_traceback(None)  # cured since the call failed
            durable = int(position.durable_lsn)
            lost = range(durable + 1, self._last_lsn() + 1)
            self._poison = _refusals.with_loss(error, durable, lost)
            self._staged, self._staged_bytes = [], 0
            self._limit = -1
            return self._poison

    def _resume(self, report: RecoveryReport) -> None:
        """Go on from what a reopening found."""
        with self._stage_lock:
            if self._poison is not None:
                self._former_poison = self._poison
                self._poison = None
            self._handed, self._flight, self._own = report.last_lsn, None, ()
            self._limit = self._record_bytes_max

    def after_fork_in_child(self) -> None:
        """Become a handle that refuses; the parent's threads may have held the locks."""
        self._state = State.FORKED
        self._limit = -1
        self._reset()
