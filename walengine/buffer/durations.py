"""Durations: float seconds or timedelta in code, whole ms or text with a unit in files."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal

_UNITS_US = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_TEXT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(us|ms|s|min|h|d)", re.ASCII)
_MS_MAX = 10**14


def from_code(name: str, value: object) -> timedelta:
    """Return a duration given in code: a timedelta, or a number of seconds.

    Raises:
        TypeError: It is neither.
        ValueError: It is not finite, or too long for a timedelta.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a timedelta or seconds, not {type(value).__name__}")
    if not math.isfinite(value) or abs(value) > _MS_MAX / 1000:
        raise ValueError(f"{name} must be a finite number of seconds")
    return timedelta(seconds=value)


def from_file(name: str, value: object) -> timedelta:
    """Return a duration given in a file: an int of ms, or text like "100ms", "1.5s", "5min".

    Raises:
        TypeError: It is neither; a float would not say which unit it means.
        ValueError: The text is no duration, or finer than a microsecond.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _MS_MAX:
            raise ValueError(f"{name} must be at most {_MS_MAX} ms")
        return timedelta(milliseconds=value)
    if not isinstance(value, str):
        raise TypeError(
            f'{name} must be whole milliseconds or text like "100ms", not {type(value).__name__}'
        )
    match = _TEXT.fullmatch(value)
    if match is None:
        units = ", ".join(_UNITS_US)
        raise ValueError(f'{name} must be like "100ms" or "5min", in {units}; not {value[:40]!r}')
    microseconds = Decimal(match[1]) * _UNITS_US[match[2]]
    if microseconds != microseconds.to_integral_value() or microseconds > _MS_MAX * 1000:
        raise ValueError(f"{name} must be whole microseconds and not longer than {_MS_MAX} ms")
    return timedelta(microseconds=int(microseconds))


def to_file(value: timedelta) -> int | str:
    """Return what ``from_file`` reads as this: ms where they are whole, else "1500us"."""
    microseconds = value // timedelta(microseconds=1)
    return f"{microseconds}us" if microseconds % 1000 else microseconds // 1000
