"""The tasks of a producer: held on to, so that the loop does not lose them, and supervised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Tasks"]


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

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin the work, when the loop turns.

        Not by ``create_task``: with a program's eager task factory the work would begin in here, in
        the middle of whatever spawns it.
        """
        task = asyncio.Task(self._supervised(work), loop=self._loop)
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

    async def _supervised(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
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
