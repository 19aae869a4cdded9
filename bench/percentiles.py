"""Figures out of samples, and no more of them than the samples bear."""

from __future__ import annotations

from statistics import median
from typing import Any

# The smallest number of samples that a percentile is shown for.
SAMPLES_MIN = {"p50": 1, "p90": 10, "p99": 100, "p99.9": 1000}
CDF_POINTS = 200


def latencies_us(durations_ns: list[int]) -> dict[str, float]:
    """Return the percentiles that so many samples bear, and the largest, in microseconds."""
    ordered = sorted(durations_ns)
    shown = {
        name: at(ordered, float(name[1:]) / 100)
        for name, samples_min in SAMPLES_MIN.items()
        if len(ordered) >= samples_min
    }
    return {**shown, "max": ordered[-1] / 1000} if ordered else {}


def cdf_us(durations_ns: list[int]) -> list[list[float]]:
    """Return pairs of a share of the samples and the latency that it stayed within.

    The shares come closer and closer to 1, as the interesting end of the curve does, and end where
    one sample is all that is left.
    """
    ordered = sorted(durations_ns)
    count = len(ordered)
    if count < SAMPLES_MIN["p99"]:
        return []
    shares = [1 - (1 / count) ** (step / CDF_POINTS) for step in range(CDF_POINTS)]
    return [[round(share, 7), at(ordered, share)] for share in shares]


def at(ordered_ns: list[int], share: float) -> float:
    """Return the duration that this share of the samples stayed within, in microseconds."""
    return ordered_ns[min(len(ordered_ns) - 1, int(len(ordered_ns) * share))] / 1000


def percentile_us(durations_ns: list[int], percent: int) -> float:
    """Return one percentile, in microseconds."""
    return at(sorted(durations_ns), percent / 100)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def text_of(figure: dict[str, Any], digits: int | None = None) -> str:
    """Return a spread as tables show it: median (smallest-largest)."""
    if digits is None:
        size = abs(figure["median"])
        digits = 2 if size < 10 else 1 if size < 100 else 0
    shown = [f"{figure[key]:,.{digits}f}" for key in ("median", "min", "max")]
    return f"{shown[0]} ({shown[1]}-{shown[2]})"
