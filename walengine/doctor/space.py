"""Free space and inodes, against what a log takes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from walengine.doctor._calls import error_text
from walengine.doctor.findings import Finding, Findings, size
from walengine.doctor.trial import Trial

SEGMENTS_SOON = 2  # the second one is prepared when the first is half full
SEGMENTS_ROOMY = 16
TRY_BELOW_SHARE = 8  # a segment is tried only where it takes less than 1/8 of what is free
FILES_OF_A_LOG = 8
FILES_ROOMY = 1000


@dataclass(frozen=True, slots=True)
class Space:
    """What an ordinary user may still take.

    Attributes:
        total_bytes: Of the filesystem.
        free_bytes: Without what is kept for root.
        files: Inodes in all; 0 where they are made as needed.
        free_files: Of those, the free ones.
    """

    total_bytes: int
    free_bytes: int
    files: int
    free_files: int


def space_of(directory: Path) -> Space | None:
    """Return what is free; None where the filesystem does not tell."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    unit = status.f_frsize or status.f_bsize
    total, free = status.f_blocks * unit, status.f_bavail * unit
    return Space(total, free, status.f_files, status.f_favail)


def may_try(space: Space | None, segment_bytes: int) -> bool:
    """Return whether so much can be taken for a moment without anybody noticing."""
    return space is not None and space.free_bytes // TRY_BELOW_SHARE > segment_bytes


def examine(
    space: Space | None, trial: Trial, segment_bytes: int, *, is_log: bool
) -> list[Finding]:
    """Say whether segments of this size fit."""
    say = Findings("space")
    if space is None:
        say.note("free", "the filesystem does not tell how much is free", None)
        return say.made
    _bytes(say, space, trial, segment_bytes, is_log=is_log)
    _files(say, space)
    return say.made


def _bytes(say: Findings, space: Space, trial: Trial, segment_bytes: int, *, is_log: bool) -> None:
    free, unit = space.free_bytes, size(segment_bytes)
    facts = {
        "free_bytes": free,
        "total_bytes": space.total_bytes,
        "segment_bytes": segment_bytes,
        "allocation_tried": trial.room_tried,
    }
    remedy = "free space, or open the log with a smaller WalConfig.segment_bytes"
    if trial.room_error is not None:
        quota = trial.room_error.errno == errno.EDQUOT
        say.problem(
            "free",
            f"{size(free)} are free, and a segment of {unit} could not be allocated: "
            f"{error_text(trial.room_error)}",
            "raise the quota" if quota else remedy,
            **facts,
        )
    elif free < segment_bytes and is_log:
        say.warn(
            "free",
            f"{size(free)} are free, less than a segment ({unit}): the log takes records until "
            "the segments that it has are full",
            "free space, or trim the log",
            **facts,
        )
    elif free < segment_bytes:
        say.problem(
            "free",
            f"{size(free)} are free, and the smallest log takes one segment: {unit}",
            remedy,
            **facts,
        )
    elif free < SEGMENTS_ROOMY * segment_bytes:
        grows = "" if free >= SEGMENTS_SOON * segment_bytes else ", and none for the second"
        say.warn(
            "free",
            f"{size(free)} are free, room for {free // segment_bytes} segments of {unit}{grows}",
            remedy,
            **facts,
        )
    else:
        tried = ", and one could be allocated" if trial.room_tried else ""
        say.ok(
            "free",
            f"{size(free)} of {size(space.total_bytes)} are free: "
            f"{free // segment_bytes:,} segments of {unit}{tried}",
            **facts,
        )


def _files(say: Findings, space: Space) -> None:
    free = space.free_files
    facts = {"free": free if space.files else None, "total": space.files or None}
    if not space.files:
        say.ok("inodes", "inodes are made as they are needed", **facts)
    elif free < FILES_OF_A_LOG:
        say.problem(
            "inodes",
            f"{free} inodes are free, and a log takes {FILES_OF_A_LOG}",
            "remove files, or make the filesystem anew with more inodes",
            **facts,
        )
    elif free < FILES_ROOMY:
        say.warn(
            "inodes", f"{free} inodes are free, which other files may take", "remove files", **facts
        )
    else:
        say.ok("inodes", f"{free:,} inodes are free", **facts)
