"""How a producer ends: closed, forgotten, or left behind in the child of a fork."""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from typing import Protocol

from walengine.buffer.errors import QueueError, StorageError
from walengine.buffer.producer._pipeline import Pipeline

__all__ = ["flushed", "may_fork", "warn"]


class Forkable(Protocol):
    """What is told that it is in the child of a fork."""

    def after_fork_in_child(self) -> None:
        """Refuse from now on."""
        ...


async def flushed(pipeline: Pipeline, timeout_s: float | None) -> QueueError | None:
    """Flush; give up what is left when the time is over; return what has failed."""
    try:
        async with asyncio.timeout(timeout_s):
            await pipeline.flush()
    except TimeoutError:
        pipeline.fail_all(StorageError(f"aclose() was to wait {timeout_s:g} s only"))
        pipeline.fail_late()
    except QueueError as error:
        return error
    try:
        pipeline.raise_unseen()
    except QueueError as error:
        return error
    return None


def warn(pipeline: Pipeline, name: str) -> None:
    """Tell of a producer that nobody closed."""
    calls, entries = map(sum, zip(pipeline.held.count(), pipeline.lost, strict=True))
    if calls == 0:
        return
    warnings.warn(
        f"{name} of {pipeline.queue.name} was not closed; entries that may be lost: {entries} of "
        f"{calls} calls. Close it, or use it in a with block",
        ResourceWarning,
        stacklevel=2,
    )


def may_fork(producer: Forkable) -> None:
    """Tell the producer when it finds itself in the child of a fork."""
    _all.add(producer)


_all: weakref.WeakSet[Forkable] = weakref.WeakSet()


def _in_child() -> None:
    for producer in list(_all):
        producer.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)
