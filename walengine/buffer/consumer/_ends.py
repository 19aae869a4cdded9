"""The ends of a consumer: what it is given, and what is left when nobody closes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings

from walengine.buffer.consumer._session import Session

__all__ = ["cancel_other", "check_position", "forget"]


def check_position(last_acked_sequence: int | None) -> None:
    """Check the argument; raises TypeError or ValueError."""
    if last_acked_sequence is None:
        return
    if isinstance(last_acked_sequence, bool) or not isinstance(last_acked_sequence, int):
        kind = type(last_acked_sequence).__name__
        raise TypeError(f"last_acked_sequence must be an int or None, not {kind}")
    if last_acked_sequence < 0:
        raise ValueError("last_acked_sequence must not be negative; None is before the first")


def cancel_other(task: asyncio.Task[None]) -> None:
    """Cancel the collector; unless it is what found out, for then it ends by itself."""
    if task is not asyncio.current_task():
        task.cancel()


def forget(
    session: Session, collecting: asyncio.Task[None], loop: asyncio.AbstractEventLoop, pid: int
) -> None:
    """Stop the collector of a consumer that nobody closed, and tell what that left behind."""
    if os.getpid() != pid:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(collecting.cancel)
    progress = session.progress
    if progress.is_dequeue_due and not session.is_fenced:
        warnings.warn(
            f"a consumer of {session.queue.name} was not closed: acked batches that are still "
            f"listed, and may be delivered again: {progress.acked - progress.dequeued}. Close it, "
            "or use it in a with block",
            ResourceWarning,
            stacklevel=2,
        )
