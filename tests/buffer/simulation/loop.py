"""The event loop of one simulated process: asyncio's scheduling rules over virtual time.

Only what asyncio's tasks, futures, locks and timeouts ask of a loop is here. There is no selector:
what wakes a process is an event of the world. Handles run in the order in which they were called
soon, as in asyncio; a process runs until nothing of its own is ready, because nobody else could
tell the difference but by the store, and each request to that is an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from asyncio import events
from collections import deque

HANDLES_MAX = 20_000
"""More in one instant, and the process spins."""


class SpinError(AssertionError):
    """A process that does not come to rest: time cannot go on."""


class ProcessLoop(asyncio.AbstractEventLoop):
    """An event loop without a thread, a selector or a clock of its own.

    Attributes:
        process: Whose it is: gives the monotonic time, and events at a later one.
        uncaught: What went to the exception handler.
    """

    def __init__(self, process):
        self.process = process
        self.uncaught = []
        self._ready = deque()
        self._dead = False
        self._tasks = []

    # ---- driven by the world ---------------------------------------------------------------------

    def run_ready(self):
        """Run what is ready, and what that makes ready, until nothing is."""
        if self._dead or not self._ready:
            return
        ready, left = self._ready, HANDLES_MAX
        events._set_running_loop(self)
        try:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                left -= 1
                if left == 0:
                    raise SpinError(f"{self.process.name} spins at {self.process.world.now_s} s")
        finally:
            events._set_running_loop(None)

    def die(self):
        """Stop, in the middle of whatever is going on: nothing of it runs again."""
        self._dead = True
        self._ready.clear()

    def bury(self):
        """Close the coroutines of a dead process, which nobody may see any more."""
        self.die()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task.done():
                continue
            task._log_destroy_pending = False
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                # A task that never began, a finally that awaits: nobody is there to mind.
                warnings.simplefilter("ignore", RuntimeWarning)
                task.get_coro().close()

    # ---- what asyncio asks for -------------------------------------------------------------------

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, self, context)
        if not self._dead:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._dead:
            self.process.set_timer(timer)
        return timer

    def fire(self, timer):
        """A timer's time has come."""
        if not timer._cancelled:
            self._ready.append(timer)

    def time(self):
        return self.process.monotonic_s()

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, *, name=None, context=None):
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 400:
            self._tasks = [task for task in self._tasks if not task.done()]
        return task

    def run_in_executor(self, *_):
        raise AssertionError("work leaves the loop through the environment's offload only")

    def is_running(self):
        return events._get_running_loop() is self

    def is_closed(self):
        return self._dead

    def get_debug(self):
        return False

    def call_exception_handler(self, context):
        self.uncaught.append(context)

    def _timer_handle_cancelled(self, handle):
        pass
