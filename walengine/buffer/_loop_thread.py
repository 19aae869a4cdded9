"""A private event loop in a daemon thread: how the synchronous twins run the asynchronous ones.

One logic, two faces: the synchronous class hands coroutines to the loop here and waits for what
they return. The thread is a daemon, so that a program that forgot to close can end; what it leaves
behind is the twin's to warn of. It never refers to the twin, which can so be collected.

A wait that a signal interrupts (Ctrl-C) cancels the coroutine. In the child of a fork the thread
is not there: every call is refused, where it would otherwise wait for ever.

The lock keeps what is handed to the loop in front of its end. It is re-entrant: a twin may be
collected, and a signal's handler may close it, in the middle of a call that has the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar
from weakref import WeakSet

from walengine.buffer.errors import QueueError

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a thread of its own, from ``start`` to ``stop``.

    Args:
        name: Of the thread, and of whom it serves, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._forked = False
        _all.add(self)

    @property
    def is_running(self) -> bool:
        """Whether coroutines can be run."""
        return self._loop is not None and not self._forked

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        self._refuse_child()
        with self._lock:
            if self._loop is not None:
                return
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_main, args=(loop,), name=f"walengine-{self.name}", daemon=True
            )
            try:
                thread.start()
            except BaseException:  # the system has no more threads
                loop.close()
                raise
            self._thread, self._loop = thread, loop

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for what it returns.

        Args:
            work: Makes the coroutine, on the loop.
            timeout_s: How long to wait; then the coroutine is cancelled.

        Raises:
            TimeoutError: It took longer.
            QueueError: The loop is not running, or is the parent process's.
            Exception: Whatever the coroutine raises.
        """
        future = self.submit(work)
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise QueueError(f"{self.name}: it was closed meanwhile") from None
        except BaseException:
            future.cancel()  # nothing, if it was the coroutine that raised
            raise

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine on the loop; return the future of its result."""
        self._refuse_child()
        with self._lock:
            loop = self._loop
            if loop is None:
                state = "not open" if self._thread is None else "closed: open another"
                raise QueueError(f"{self.name}: it is {state}")
            if threading.current_thread() is self._thread:
                raise QueueError(
                    f"{self.name}: called from its own event loop's thread, where it would wait "
                    "for itself; use the asynchronous twin there"
                )
            future = _handed_over(_called(work), loop)
            if self._loop is not loop:  # stopped in here, by this very thread: it may never begin
                future.cancel()
            return future

    def stop(self, *, wait: bool = True) -> None:
        """End the loop: what still runs is cancelled. A second call does nothing.

        Args:
            wait: Until the thread has ended. A finalizer must not, it may run in any thread.
        """
        with self._lock:
            loop, self._loop = self._loop, None
            thread = self._thread
        if loop is None or self._forked:
            return
        with contextlib.suppress(RuntimeError):  # the thread was first, at interpreter exit
            loop.call_soon_threadsafe(loop.stop)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def after_fork_in_child(self) -> None:
        """Refuse from now on: the thread is the parent's."""
        self._forked = True
        self._lock = threading.RLock()

    def _refuse_child(self) -> None:
        if self._forked:
            raise QueueError(f"{self.name}: opened in the parent process; open one in this process")


def _handed_over(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Future[T]:
    try:
        return asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:  # the loop is closed
        work.close()
        future: Future[T] = Future()
        future.cancel()
        return future


async def _called(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await work()


def _main(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped; then let every task see its cancellation."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


_all: WeakSet[LoopThread] = WeakSet()


def _in_child() -> None:
    for each in list(_all):
        each.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)
