"""The synchronous shell: one lock, writes in the caller's thread, ends without a close.

One re-entrant lock is held through every call, a write included: any number of threads may send,
the order of calls is the order of items, and while one of them writes the others wait. Re-entrant
since a destination may come back to its own sink, by logging for one: such a nested send is
buffered and triggers nothing, a nested flush is refused.

A sink that nobody closed is flushed when it is collected and at interpreter exit, or warned of if
that would take a network. The exit is
hooked here and not through weakref.finalize, whose own hook may run after the one that closes logs.
In the child of a fork a sink is empty: what was buffered is the parent's, and the parent writes it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from walengine.sinks._core import KEPT, Core, State, warn_not_closed, with_note
from walengine.sinks._destination import Destination
from walengine.sinks.errors import BackpressureError, SinkError

T = TypeVar("T")

log = logging.getLogger("walengine")


class Shell(Generic[T]):
    """Everything of a sync sink but its face, to which it never refers."""

    def __init__(self, core: Core[T], destination: Destination[T]) -> None:
        self.core = core
        self.destination = destination
        self._lock = threading.RLock()
        self._is_writing = False
        self._writes_in_send = core.options.when_full == "flush"
        open_shells.add(self)

    def send(self, item: T) -> None:
        """Accept one item, and write if that makes a batch due."""
        core = self.core
        with self._lock:
            self._make_ready()
            position = core.accept(self.destination.admit(item))
            if not self._writes_in_send or self._is_writing or not core.is_due():
                return
            try:
                self._write()
            except BaseException as error:
                if core.withdraw(position, self.destination.taken()):
                    raise
                if not isinstance(error, Exception):
                    raise
                core.kept_error = error

    def send_all(self, source: Iterable[T]) -> int:
        """Send every item, then flush.

        There is room before an item is taken from source, and what was taken stays accepted: an
        item that was already drawn from an iterator has no other place.
        """
        count = 0
        with self._lock:
            self._make_ready()
        for item in source:
            with self._lock:
                self.core.check_open()
                self.core.accept(self.destination.admit(item))
                count += 1
                if self._writes_in_send and not self._is_writing and self.core.is_due():
                    self._write()
                self._make_ready()
        self.flush()
        return count

    def poll(self) -> bool:
        """Write if a trigger asks for it; tell whether anything was written."""
        with self._lock:
            self.core.check_open()
            if self._is_writing or not self.core.is_due():
                return False
            self._drain()
            return True

    def flush(self) -> None:
        """Write everything accepted so far, and have the destination flush."""
        with self._lock:
            self.core.check_open()
            self._refuse_reentry()
            self._drain()
            self.destination.flush()

    def close(self) -> None:
        """Flush, close the destination, refuse what comes."""
        with self._lock:
            if self.core.state is State.CLOSED:
                return
            self._refuse_reentry()
            # A nested send would stay behind in a closed sink: it is refused.
            self.core.state = State.CLOSING
            try:
                self._drain()
                self.destination.close()
            except BaseException:
                self.core.state = State.OPEN
                raise
            self.core.state = State.CLOSED
            open_shells.discard(self)

    def discard(self) -> list[T]:
        """Give up what is buffered and return it."""
        with self._lock:
            self._refuse_reentry()
            self.destination.forget()
            return self.core.discard()

    def finish(self) -> None:
        """Flush a sink that nobody closed; there is no caller to tell of a failure."""
        if self.destination.needs_network:
            self.warn_of_the_rest()
            return
        error = self.flush_left()
        if error is not None:
            self.tell_loss(error)

    def warn_of_the_rest(self) -> None:
        """Say that nobody closed a sink that needs a network: it is not waited for."""
        if self.core.state is not State.CLOSED and self.core.items:
            warn_not_closed(self.core, "Call close(), or use it in a with block")

    def flush_left(self) -> Exception | None:
        """Flush what is left in a sink that nobody closed; return what went wrong."""
        if self.core.state is State.CLOSED or not self.core.items:
            return None
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 (whatever a destination raises)
            return error
        return None

    def tell_loss(self, error: Exception) -> None:
        """Say how much is lost; there is no caller whose place a traceback would show."""
        log.error(
            "%s was not closed; items that are lost: %d, for %r",
            self.core.name,
            len(self.core.items),
            error,
        )

    def after_fork_in_child(self) -> None:
        """Become an empty sink; the parent's threads may have held the lock."""
        self._lock = threading.RLock()
        self._is_writing = False
        self.core.clear()
        self.core.note_level()
        self.destination.forget()

    # ---- the lock is held ------------------------------------------------------------------------

    def _make_ready(self) -> None:
        """Raise what must be raised before an item is accepted; see to it that there is room."""
        core = self.core
        core.check_open()
        core.raise_kept()
        if not core.is_full():
            return
        if self._is_writing or not self._writes_in_send:
            raise BackpressureError(
                f"{core.name}: {core.waiting} items are buffered, which is a batch; "
                "flush() makes room"
            )
        self._write()

    def _drain(self) -> None:
        """Write what was accepted up to now; what a nested send adds may stay."""
        goal = self.core.accepted
        while self.core.written < goal:
            self._write()

    def _write(self) -> None:
        """Write one batch."""
        self._is_writing = True
        try:
            self.destination.write(self.core.begin())
        except BaseException as error:
            self.core.fail()
            self.core.kept_error = None  # this one is newer, and the caller gets it
            if isinstance(error, Exception):
                with_note(error, f"{self.core.name}: {KEPT}")
            raise
        else:
            self.core.succeed()
        finally:
            self._is_writing = False

    def _refuse_reentry(self) -> None:
        if self._is_writing:
            raise SinkError(f"{self.core.name}: called by its own destination in mid-write")


open_shells: WeakSet[Shell[Any]] = WeakSet()


def _at_exit() -> None:
    """Flush what nobody closed, in rounds: a sink may feed one that had its turn before."""
    failed: dict[Shell[Any], Exception] = {}
    flushed = [shell for shell in open_shells if not shell.destination.needs_network]
    for _ in range(len(flushed)):
        left = [shell for shell in flushed if shell.core.items and shell not in failed]
        for shell in left:
            error = shell.flush_left()
            if error is not None:
                failed[shell] = error
        if not left:
            break
    for shell in list(open_shells):
        if shell.destination.needs_network:
            shell.warn_of_the_rest()
        elif shell.core.items and shell not in failed:
            failed[shell] = SinkError("sinks feed each other in a circle")
    for shell, error in failed.items():
        shell.tell_loss(error)


def _in_child() -> None:
    for shell in list(open_shells):
        shell.after_fork_in_child()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
