"""The tasks of a producer: held on to, so that the loop does not lose them, and supervised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

__all__ = ["Tasks"]

A = TypeVarTuple("A")


class Tasks:
    """Tasks that nobody awaits.

    Args:
        on_error: Told of an error that a task ended with.
        on_shutdown: Told that the interpreter is going down: thread pools refuse work.
    """

    def __init__(
        self, on_error: Callable[[Exception], None], on_shutdown: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_error = on_error
        self._on_shutdown = on_shutdown
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_spawning = False

    def spawn(
        self, work: Callable[[*A], Coroutine[Any, Any, None]], *arguments: *A
    ) -> asyncio.Task[None]:
        """Have the work done, beginning when the loop turns."""
        self._is_spawning = True
        try:
            task = self._loop.create_task(self._supervised(lambda: work(*arguments)))
        finally:
            self._is_spawning = False
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Cancel all but the one that calls this; what they began at the store may go on."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def stop(self) -> None:
        """Cancel all, and wait until they have ended."""
        tasks = list(self._tasks)
        self.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervised(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._is_spawning:
            # The program's task factory begins tasks at once: not in the middle of what spawns it.
            await asyncio.sleep(0)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 (whatever it is, somebody must know)
            if _is_shutdown(error):
                self._on_shutdown()
            else:
                self._on_error(error)


def _is_shutdown(error: Exception) -> bool:
    """Tell whether the interpreter is going down: thread pools refuse work then, by these words."""
    return isinstance(error, RuntimeError) and "after shutdown" in str(error).replace(
        "interpreter ", ""
    )
