"""What tells how fast this machine's Python is at the moment: a method that is known to all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

RECORD = bytes(range(256))


class Calibration:
    """A method that takes a lock, appends to a list and adds to a count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[bytes] = []
        self._bytes = 0

    def add(self, item: bytes) -> int:
        """Do it."""
        with self._lock:
            self._items.append(item)
            self._bytes += len(item)
        return self._bytes

    def ns(self, count: int = 20_000) -> float:
        """Return what one call costs now, in nanoseconds."""
        took = ns_per_call(self.add, count)
        self._items.clear()
        return took


def ns_per_call(function: Callable[[bytes], object], count: int) -> float:
    """Return the mean cost of function(RECORD), the loop's own included."""
    record = RECORD
    begin = perf_counter_ns()
    for _ in range(count):
        function(record)
    return (perf_counter_ns() - begin) / count


@contextmanager
def busy_thread() -> Iterator[None]:
    """Let a Python thread count as fast as it can."""
    stop = False

    def work() -> None:
        number = 0
        while not stop:
            number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()
