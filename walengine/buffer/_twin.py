"""What the synchronous twins have in common: an asynchronous one inside, on a loop in a thread."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from walengine.buffer._loop_thread import LoopThread
from walengine.buffer.errors import QueueError
from walengine.buffer.metrics import Metrics

__all__ = ["Twin"]

log = logging.getLogger("walengine.buffer")


class Asynchronous(Protocol):
    """The asynchronous one, as far as all of its kind are the same."""

    _is_closed: bool

    @property
    def metrics(self) -> Metrics:
        """Its instruments."""
        ...

    async def __aenter__(self) -> Any:
        """Open, unless it is open."""
        ...

    async def aclose(self) -> None:
        """Close."""
        ...


A = TypeVar("A", bound=Asynchronous)


class Twin(Generic[A]):
    """A synchronous class over an asynchronous one: the same promises, for any number of threads.

    Neither the thread nor the asynchronous one refers to it: one that nobody closes is collected,
    and its thread ends.

    Args:
        inner: The asynchronous one, not open yet.
    """

    def __init__(self, inner: A) -> None:
        self._inner = inner
        self._thread = LoopThread(type(self).__name__)
        weakref.finalize(self, self._thread.stop, wait=False)

    def __enter__(self) -> Self:
        """Open, unless it is open; raises as the asynchronous twin does."""
        self._thread.start()
        try:
            self._thread.run(self._inner.__aenter__)
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; an error of the block is not covered by one of closing."""
        try:
            self.close()
        except QueueError as closing:
            if error is None:
                raise
            log.warning("%r: closing failed too: %s", self, closing)

    def close(self) -> None:
        """Close; a second call does nothing. Raises as the asynchronous twin does."""
        self._close(self._inner.aclose)

    @property
    def metrics(self) -> Metrics:
        """The instruments, for a ``PrometheusCollector``."""
        return self._inner.metrics

    def __repr__(self) -> str:
        """Show where it is and how far."""
        return repr(self._inner).replace(type(self._inner).__name__, type(self).__name__, 1)

    def _close(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the inner one's closing, and end the thread if that closed it: it may refuse."""
        if not self._thread.is_running:
            return
        try:
            self._thread.run(closing)
        finally:
            if self._inner._is_closed:  # noqa: SLF001 (its twin)
                self._thread.stop()
