"""How long to wait before trying again: after a lost race for the manifest, and after an error.

A conflict means that somebody else made progress, and the way on is known: three retries go at
once. Then programs that lose to each other in step are to fall out of it, so they wait a random
part of one round trip, which is how long a race takes. An error means that the store is in trouble,
and more load is no help: the waits double.
"""

from __future__ import annotations

import logging
import random
from typing import Final

__all__ = ["Backoff", "Pace"]

RETRIES_AT_ONCE: Final = 3

ERROR_WAIT_MIN_S: Final = 0.05
ERROR_WAIT_MAX_S: Final = 5.0
ERRORS_UNTIL_TOLD: Final = 3
"""In a row; one or two are what a store in the cloud has every day."""

ROUND_TRIP_SHARE: Final = 0.2
"""Of the newest one in the smoothed round trip."""


class Backoff:
    """Waits after errors in a row: doubled each time, and a random half of that less.

    Args:
        chance: Where the jitter comes from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._errors = 0

    def level(self) -> int:
        """Return the level at which to log an error, before ``after_error``: a warning once."""
        return logging.WARNING if self._errors + 1 == ERRORS_UNTIL_TOLD else logging.INFO

    def after_error(self) -> float:
        """Return how long to wait, in seconds."""
        longest = min(ERROR_WAIT_MAX_S, ERROR_WAIT_MIN_S * float(1 << min(self._errors, 20)))
        self._errors += 1
        return longest * (0.5 + self._chance.random() / 2)

    def succeeded(self) -> None:
        """Begin anew."""
        self._errors = 0


class Pace(Backoff):
    """The waits of who swaps the manifest.

    Attributes:
        round_trip_s: How long a trip to the store takes, smoothed; 0 before the first.
    """

    round_trip_s: float

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self._conflicts = 0
        self.round_trip_s = 0.0

    def measured(self, seconds: float) -> None:
        """Take note of how long a trip took, whatever came of it."""
        if self.round_trip_s == 0.0:
            self.round_trip_s = seconds
        else:
            self.round_trip_s += ROUND_TRIP_SHARE * (seconds - self.round_trip_s)

    def after_conflict(self) -> float:
        """Return how long to wait, in seconds."""
        self._conflicts += 1
        if self._conflicts <= RETRIES_AT_ONCE:
            return 0.0
        return self._chance.random() * self.round_trip_s

    def succeeded(self) -> None:
        """Begin anew."""
        super().succeeded()
        self._conflicts = 0
