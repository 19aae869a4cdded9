"""How a writer's calls become hand-overs and commits: what stands behind the public methods."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any

from walengine._handover import HandOver
from walengine._opening import note_sync
from walengine._records import copied
from walengine._staging import Staged
from walengine.errors import WalError, WalFullError, WalPoisonedError
from walengine.types import Lsn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


log = logging.getLogger("walengine")


class Appending(HandOver):
    """Base of the writers: one record, a batch or a group, handed over or durable."""

    def _append(self, item: Staged, size: int) -> Lsn:
        return self._append_single(item, size, durable=self._is_direct)

    def _append_single(self, item: Staged, size: int, *, durable: bool) -> Lsn:
        """Append one record, in a lane where that is possible."""
        if size > self._limit:
            raise self._refusal(size)
        if not self._lanes and not self._quiet:
            self._open_lanes()
        while self._lanes:
            lsn = self._append_in_lane(item, durable=durable)
            if lsn:
                return lsn
            self._align_lanes()
        if durable:
            return self._flush((item,))
        with self._handover_lock:
            return self._hand_over((item,))

    def _append_in_lane(self, item: Staged, *, durable: bool) -> Lsn:
        """Append by one native call that may run beside others'; 0: nothing was taken."""
        record, crc = item if isinstance(item, tuple) else (item, None)
        if self._thread != get_ident():
            self._meet_thread()
        former = self._former_poison
        begin = perf_counter()
        try:
            lsn, is_done = self._native.append_in_lane(record, crc, durable=durable)
        except WalPoisonedError as error:
            raise self._poisoned(error) from None
        if durable:
            note_sync(self._path, perf_counter() - begin)
        if lsn and not is_done:
            self._commit(lsn, former)
        return lsn

    def _append_and_flush(self, item: Staged) -> int:
        """Append the record that fills the batch (it is never staged itself), and sync."""
        self._flush((item,))
        return 0

    def _flush(self, own: Sequence[Staged] = (), *, atomic: bool = False) -> Lsn:
        """Make durable what is staged, then own; on a full log, what fits."""
        if self._lanes and not own and (lsn := self._commit_lanes()) is not None:
            return lsn
        full = None
        with self._handover_lock:
            former = self._former_poison
            try:
                last = self._hand_over(own, durable=True, atomic=atomic)
            except WalFullError as error:
                full, last = error, self._handed
            is_synced = self._is_synced
        if not is_synced:
            self._commit(last, former)
        if full is not None:
            raise full
        return last

    def _commit(
        self, lsn: Lsn, former: WalPoisonedError | None, timeout: float | None = None
    ) -> None:
        """Wait until everything up to lsn is durable; TimeoutError behind timeout, in seconds.

        A poisoning and a reopening may lie between the hand-over and here; then lsn may have been
        given anew, and its being durable says nothing about the record that was meant.
        """
        begin = perf_counter()
        problem: WalError | None = None
        try:
            if timeout is None:
                self._native.commit(lsn)
            else:
                self._native.commit_within(lsn, timeout)
        except WalError as error:
            problem = error
        note_sync(self._path, perf_counter() - begin)
        if type(problem) is WalError:  # C does not know this LSN any more: somebody is reopening
            with self._handover_lock:
                pass
        cured = self._former_poison
        if cured is not None and cured is not former:
            raise cured.with_traceback(None)
        if isinstance(problem, WalPoisonedError):
            raise self._poisoned(problem)
        if problem is not None:
            raise problem

    def _commit_lanes(self) -> Lsn | None:
        """Make durable what is in C: everything, while lanes are open; None: they are not."""
        former = self._former_poison
        with self._stage_lock:
            if not self._lanes:
                return None
            last = self._last_lsn()
        self._commit(last, former)
        return last

    def _stage_all(self, records: Sequence[bytes]) -> tuple[range, bool]:
        """Stage them; return their LSNs, and whether the batch is full now."""
        size = sum(map(len, records))
        with self._stage_lock:
            if self._limit < 0:
                raise self._refusal(0)
            if self._lanes:
                self._close_lanes()
            first = self._last_lsn() + 1
            self._staged.extend(records)
            self._staged_bytes += size
            return range(first, first + len(records)), self._staged_bytes >= self._batch_bytes_max

    def _append_group(self, records: Sequence[bytes], *, durable: bool) -> range:
        """Hand the records over as one atomic group, behind what is staged."""
        if durable or self._is_direct:
            last = self._flush(records, atomic=True)
        else:
            with self._handover_lock:
                last = self._hand_over(records, atomic=True)
        return range(last - len(records) + 1, last + 1)

    def _wait(self, lsn: Lsn, timeout: float | None) -> None:
        """Hand over what is staged, if lsn is, and wait until it is durable."""
        former = self._former_poison
        if lsn > self._handed:
            self._hand_over_staged()
        self._commit(lsn, former, timeout)

    def _hand_over_staged(self) -> None:
        """Hand over what is staged; while lanes are open nothing is."""
        with self._handover_lock:
            if not self._lanes:
                self._hand_over()

    def _flush_before_reopening(self) -> None:
        """Sync a sound writer; a full or failing one is reopened as it is."""
        try:
            self._flush()
        except (WalFullError, WalPoisonedError) as error:
            log.warning("before reopening: %s", error)

    def _trim(self, lsn: Lsn) -> None:
        """Drop what is below lsn, behind what is staged; on a full log that stays staged."""
        try:
            self._hand_over_staged()
        except WalFullError as error:
            log.info("trimming with records still staged: %s", error)
        try:
            self._native.truncate_before(lsn)
        except WalPoisonedError as error:
            raise self._poisoned(error) from None

    def _position(self) -> Any:
        self._check_open()
        return self._native.position()

    def _close_native(self) -> WalError | None:
        """Seal and release; return what went wrong."""
        try:
            self._native.close()
        except WalPoisonedError as error:
            return self._poisoned(error)
        except WalError as error:
            return error
        return None

    # ---- records ---------------------------------------------------------------------------------

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise self._refusal(size)

    def _copied(self, data: ReadableBuffer) -> bytes:
        return copied(data, self._check)
