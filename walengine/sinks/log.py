"""LogSink, its twin, and SinkHandler: lines of text in chunks, from the logging module too."""

from __future__ import annotations

import contextlib
import logging
from typing import Protocol

from walengine.sinks._buffered import AsyncBufferedSink, BufferedSink
from walengine.sinks._destination import Destination, InThread
from walengine.sinks.errors import SinkClosedError
from walengine.sinks.options import SinkOptions
from walengine.sinks.protocols import Sink

__all__ = ["AsyncLogSink", "LogSink", "SinkHandler"]


class TextWriter(Protocol):
    """What lines are written to: an open text file, for one."""

    def write(self, text: str, /) -> object:
        """Take all of the text, or raise."""
        ...

    def flush(self) -> object:
        """Pass on what was written."""
        ...


class _Lines(Destination[str]):
    """Writes a batch in one call, and flushes the writer."""

    def __init__(self, writer: TextWriter) -> None:
        self._writer = writer
        self._written = 0  # leading lines that the writer took and could not flush yet

    def admit(self, item: str) -> str:
        """Refuse what is no text."""
        if not isinstance(item, str):
            raise TypeError(f"a line is a str, not {type(item).__name__}")
        return item

    def write(self, batch: list[str]) -> None:
        """Write what the writer does not have; it keeps what it could not flush."""
        rest = batch[self._written :]
        if rest:
            self._writer.write("".join(map(_ended, rest)))
            self._written = len(batch)
        self._writer.flush()
        self._written = 0

    def taken(self) -> int:
        """Return how many lines wait in the writer."""
        return self._written

    def forget(self) -> None:
        """Begin with the next line."""
        self._written = 0


def _ended(line: str) -> str:
    return line if line.endswith("\n") else line + "\n"


class LogSink(BufferedSink[str]):
    """Batches lines of text and writes each batch with one call.

    A line gets a newline where it has none at its end. The writer is flushed after each batch and
    never closed. Flushed means handed to the operating system, if the writer is a file; not synced.
    A ``write`` that raises counts as one that took nothing: a file that took part of a batch before
    the disk was full gets those lines again.

    Args:
        writer: An open text file, or anything else with ``write(str)`` and ``flush()``.
        chunk_lines: Lines of a batch.
        options: Other triggers and the watermarks.

    Example:
        >>> import sys
        >>> from walengine.sinks import LogSink
        >>> with LogSink(sys.stdout, chunk_lines=100) as sink:
        ...     sink.send("first")
        ...     sink.send("second")
        first
        second
    """

    def __init__(
        self, writer: TextWriter, chunk_lines: int, options: SinkOptions | None = None
    ) -> None:
        super().__init__(chunk_lines, _Lines(writer), options)


class AsyncLogSink(AsyncBufferedSink[str]):
    """The asynchronous twin of LogSink; the writer is called in the loop's thread pool.

    Args:
        writer: An open text file, or anything else with ``write(str)`` and ``flush()``.
        chunk_lines: Lines of a batch.
        options: Other triggers and the watermarks.
    """

    def __init__(
        self, writer: TextWriter, chunk_lines: int, options: SinkOptions | None = None
    ) -> None:
        super().__init__(chunk_lines, InThread(_Lines(writer)), options)


class SinkHandler(logging.Handler):
    """A logging handler that sends each formatted record to a sink.

    Any number of threads may log. A record that the sink did not accept is handed to
    ``handleError``, as logging does with every error of a handler.

    Args:
        sink: A sink of str, closed together with the handler. It must be thread-safe, as every
            synchronous sink of this package is.
        level: Lowest level handled.
        flush_level: Records of this level or above are flushed at once.

    Example:
        >>> import logging, sys
        >>> from walengine.sinks import LogSink, SinkHandler
        >>> handler = SinkHandler(LogSink(sys.stdout, chunk_lines=100))
        >>> logging.getLogger("shop").addHandler(handler)
        >>> logging.getLogger("shop").warning("stock is low")
        >>> handler.flush()
        stock is low
    """

    def __init__(
        self,
        sink: Sink[str],
        level: int | str = logging.NOTSET,
        flush_level: int = logging.ERROR,
    ) -> None:
        super().__init__(level)
        self._sink = sink
        self._flush_level = flush_level

    @property
    def sink(self) -> Sink[str]:
        """Where the records go."""
        return self._sink

    def createLock(self) -> None:  # noqa: N802 (the name is logging's)
        """Do without a lock of its own.

        The sink has one. With two, a thread that flushes the sink while its destination logs, and
        one that logs while the sink is full, would wait for each other.
        """
        self.lock = _NO_LOCK  # type: ignore[assignment]

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; called by logging."""
        try:
            self._sink.send(self.format(record))
            if record.levelno >= self._flush_level:
                self._sink.flush()
        except Exception:  # noqa: BLE001 (logging's rule: no error of a handler reaches the caller)
            self.handleError(record)

    def flush(self) -> None:
        """Flush the sink; logging does that at exit, with closed handlers too.

        Raises:
            Exception: Whatever the destination raised; the records stay buffered.
        """
        with contextlib.suppress(SinkClosedError):
            self._sink.flush()

    def close(self) -> None:
        """Close the sink, and the handler whatever comes of that.

        Raises:
            Exception: Whatever the destination raised; the records stay buffered.
        """
        try:
            self._sink.close()
        finally:
            super().close()


class _NoLock:
    """What logging takes for a lock."""

    def acquire(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NO_LOCK = _NoLock()

for _kind in (LogSink, AsyncLogSink, SinkHandler):
    _kind.__module__ = "walengine.sinks"
