"""Evidence that a sync is a lie. Never proof: only a power cut proves, and only once.

A lying sync returns before the data is where it survives power loss. Seen from a program it is one
thing only: fast. What the machine says of itself adds to that.
"""

from __future__ import annotations

from typing import Any

from walengine.doctor.mounts import SYNCS_DIRECT
from walengine.fsync_bench.results import TOO_FAST_US, RowResult, Run
from walengine.fsync_bench.rows import FDATASYNC, NO_SYNC, RING_DIRECT, ZERO_FILLED

SYNC_ADDS_MIN = 1.5  # a sync that costs less than half a write again did nothing
TURN_US = 1000.0  # a disk that turns needs several times this to come round

WRITE_BACK = "write back"
WRITE_THROUGH = "write through"


def evidence(run: Run) -> list[str]:
    """Return what speaks against this disk's syncs, a sentence each; empty: nothing does."""
    place = run.place
    if place.get("in_memory"):
        text = f"The filesystem is {place['filesystem']}: it lives in memory. A sync does nothing "
        return [f"{text}there, and nothing survives power loss."]
    found = [*_too_fast(run), *_adds_nothing(run)]
    if _is_fuse(place) and any(r.row.method == RING_DIRECT for r in run.results):
        found.append(
            "FUSE drops the sync of direct writes that come through io_uring (seen on Linux 6.18): "
            f"the rows of {RING_DIRECT} are no durable writes here."
        )
    if option := place.get("barriers_off"):
        found.append(f"It is mounted with {option}: a sync does not flush the device's cache.")
    for device in place.get("devices", ()):
        found += _device(device, place.get("devices", ()), _sync_us(run))
    return found


def keeps_direct_syncs(place: dict[str, Any]) -> bool:
    """Return whether a direct write with RWF_DSYNC is known to be a sync here, on a ring too.

    Where it is not, walengine takes its writes through the page cache, whatever ``direct_io`` says.
    """
    return place.get("filesystem") in SYNCS_DIRECT


def _is_fuse(place: dict[str, Any]) -> bool:
    """FUSE asks its program for an fsync only where the write is finished when the call returns."""
    kind = place.get("filesystem") or ""
    return kind in {"fuse", "fuseblk", "virtiofs"} or kind.startswith("fuse.")


def _sync_us(run: Run) -> float | None:
    """Return what the plainest sync costs here."""
    result = run.find(FDATASYNC, ZERO_FILLED)
    return result.p50_us if result else None


def _too_fast(run: Run) -> list[str]:
    fast = [result for result in run.results if result.is_too_fast]
    if not fast:
        return []
    fastest = min(fast, key=_p50_us)
    names = sorted({result.row.method for result in fast})
    text = (
        f"Half of the commits by {fastest.row.method} on a {fastest.row.state} file took no more "
        f"than {_p50_us(fastest):.1f} µs. A device that keeps what it acknowledged rarely answers "
        f"in less than {TOO_FAST_US:.0f} µs. Too fast: {', '.join(names)}."
    )
    return [text]


def _p50_us(result: RowResult) -> float:
    return result.p50_us if result.p50_us is not None else float("inf")


def _adds_nothing(run: Run) -> list[str]:
    bare = run.find(NO_SYNC, ZERO_FILLED)
    synced = run.find(FDATASYNC, ZERO_FILLED)
    if bare is None or synced is None or not bare.p50_us or synced.p50_us is None:
        return []
    if synced.p50_us >= bare.p50_us * SYNC_ADDS_MIN:
        return []
    text = f"A write with its fdatasync takes {synced.p50_us:.1f} µs, the write alone "
    return [f"{text}{bare.p50_us:.1f} µs: the sync adds next to nothing."]


def _device(
    device: dict[str, Any], devices: list[dict[str, Any]], sync_us: float | None
) -> list[str]:
    name, cache = device["name"], device.get("write_cache")
    found = []
    below = devices[devices.index(device) + 1 :]
    volatile = [other["name"] for other in below if other.get("write_cache") == WRITE_BACK]
    if cache == WRITE_THROUGH and device.get("reported_cache") == WRITE_BACK:
        found.append(
            f"{name} reports a volatile cache, and the kernel was told to send it no flush "
            "(queue/write_cache says write through)."
        )
    elif cache == WRITE_THROUGH and volatile:
        found.append(f"{name} passes no flush on to {volatile[0]}, which has a volatile cache.")
    turns = device.get("rotational") and not device.get("hosted")
    if turns and device.get("kind") == "SCSI or SATA" and sync_us is not None and sync_us < TURN_US:
        found.append(
            f"{name} says it is a disk that turns, and a sync takes {sync_us:.0f} µs: a cache "
            "answers. That is sound if a battery or capacitors stand behind it."
        )
    return found
