"""Slow calls of C, off the event loop: opening, trimming, reopening, closing.

Each has a thread of its own, and not one of the loop's executor: a program may have filled that
with calls that wait for this one, or have shut it down before it closes the log. Being a daemon,
such a thread holds up no exit on a stuck disk; the exit itself closes the log.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(
    loop: asyncio.AbstractEventLoop,
    function: Callable[..., T],
    *arguments: Any,
    abandon: Callable[[T], object] | None = None,
) -> T:
    """Call function in a thread; return what it returns, raise what it raises.

    Args:
        loop: The loop that runs.
        function: What blocks.
        *arguments: For it.
        abandon: Called, in a thread too, with a result that nobody waits for any more.
    """
    future: asyncio.Future[T] = loop.create_future()

    def settle(settle_future: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            settle_future(outcome)
        elif abandon is not None and settle_future == future.set_result:
            _start(abandon, outcome)

    def run() -> None:
        try:
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001 (carried over to the caller)
            _tell(loop, settle, future.set_exception, error)
        else:
            if not _tell(loop, settle, future.set_result, result) and abandon is not None:
                abandon(result)

    _start(run)
    return await future


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> bool:
    """Have the loop call back; False where it has been closed."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return False
    return True


def _start(function: Callable[..., object], *arguments: Any) -> None:
    thread = threading.Thread(target=function, args=arguments, name="walengine-aio", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had: rather a loop that waits
        function(*arguments)
