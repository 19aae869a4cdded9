"""SinkOptions: when a sink writes, and when it pushes back; the same for both twins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

__all__ = ["SinkOptions"]


@dataclass(frozen=True, kw_only=True)
class SinkOptions:
    """When a buffering sink writes besides at ``capacity`` items, and when it pushes back.

    Attributes:
        max_bytes: Write when the buffered items reach this size together. It is a trigger, not a
            bound: an item that is larger is taken and written at once.
        size_of: Gives an item's size in bytes; by default that of bytes-like objects and of str in
            UTF-8. Called only with ``max_bytes``.
        max_age: Write when the oldest buffered item is this old; seconds or a timedelta. Sync sinks
            look at it in ``send`` and ``poll()``; asynchronous ones have a timer on their loop.
        high_watermark: Share of ``capacity`` (or of ``max_bytes``) at which back-pressure turns on.
        low_watermark: Share at or below which it turns off.
        when_full: What ``send`` does on a sync sink: "flush" writes inline, "raise" never writes
            and raises BackpressureError when the sink is full.
        on_backpressure: Called with True or False when back-pressure turns on or off. What it
            raises is logged.
        clock: Monotonic time in seconds; for tests.

    Raises:
        ValueError: A value is out of its range.

    Example:
        >>> from walengine.sinks import BatchSink, SinkOptions
        >>> sink = BatchSink(1000, SinkOptions(max_bytes=1 << 20, max_age=0.5))
    """

    max_bytes: int | None = None
    size_of: Callable[[Any], int] | None = None
    max_age: float | timedelta | None = None
    high_watermark: float = 0.8
    low_watermark: float = 0.5
    when_full: Literal["flush", "raise"] = "flush"
    on_backpressure: Callable[[bool], object] | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Check every value once."""
        if self.max_bytes is not None:
            checked_count("max_bytes", self.max_bytes)
        seconds = self.max_age_seconds
        if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"max_age is {self.max_age!r}: give a positive time, or None")
        if not 0 <= self.low_watermark < self.high_watermark <= 1:
            raise ValueError(
                f"low_watermark={self.low_watermark!r}, high_watermark={self.high_watermark!r}: "
                "both are shares of the capacity, the low one below the high one"
            )
        if self.when_full not in {"flush", "raise"}:
            raise ValueError(f'when_full is {self.when_full!r}: give "flush" or "raise"')

    @property
    def max_age_seconds(self) -> float | None:
        """``max_age`` in seconds."""
        if isinstance(self.max_age, timedelta):
            return self.max_age.total_seconds()
        return self.max_age


def checked_count(name: str, value: int) -> int:
    """Return value if it is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: give a whole number")
    if value < 1:
        raise ValueError(f"{name} is {value}: it must be at least 1")
    return value


def default_size(item: object) -> int:
    """Return the bytes of a bytes-like object, or of a str in UTF-8."""
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogatepass"))
    try:
        return memoryview(item).nbytes  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"max_bytes needs to know the size of a {type(item).__name__}: give size_of"
        ) from None


SinkOptions.__module__ = "walengine.sinks"
