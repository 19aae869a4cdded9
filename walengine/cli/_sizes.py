"""How a command opens a log for writing: as options say; sizes else as the log has them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import click

from walengine.config import BACKENDS, BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, WalConfig
from walengine.errors import WalError
from walengine.reader import WalReader
from walengine.types import SegmentInfo

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What writes; auto: io_uring where it works.",
)


def size(value: str) -> int:
    """Return the bytes that an option's text means; KiB, MiB or GiB may stand behind the number."""
    match = re.fullmatch(r"(\d{1,20})\s*(?:([kmg])(?:ib)?|b)?", value.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{value!r}: give bytes, or a number with KiB, MiB or GiB")
    return int(match[1]) * UNITS[(match[2] or "").lower()]


def configuration(
    log: str,
    *,
    create: bool,
    backend: str = "auto",
    segment_bytes: int | None = None,
    max_record_bytes: int | None = None,
    max_log_bytes: int | None = None,
    strict_sectors: bool = False,
) -> WalConfig:
    """Return the configuration: what was asked for, else as the log's segments are, else defaults.

    Raises:
        click.UsageError: A size is out of its range.
    """
    segments = _segments(log)
    asked: dict[str, int | None] = {
        "segment_bytes": _usual_size(segments) if segment_bytes is None else segment_bytes,
        "max_record_bytes": max_record_bytes,
        "max_log_bytes": max_log_bytes,
    }
    aligned = bool(segments) and segments[-1].commit_alignment == BLOCK_BYTES
    given: dict[str, Any] = {name: size for name, size in asked.items() if size is not None}
    try:
        return WalConfig(
            create=create, backend=backend, strict_sectors=strict_sectors or aligned, **given
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _segments(log: str) -> tuple[SegmentInfo, ...]:
    """Return the log's segments; none where it cannot be read: opening it tells why."""
    if not Path(log).is_dir():
        return ()
    try:
        with WalReader(log) as reader:
            return reader.segments
    except (WalError, ValueError):
        return ()


def _usual_size(segments: tuple[SegmentInfo, ...]) -> int | None:
    """Return the size that most segments have, of equals the newest's.

    Not simply the newest's: one that holds a large batch or record is larger, one that a crash
    ended may have been cut. Such sizes are odd ones, so round ones go first.
    """
    sizes = [
        segment.file_bytes
        for segment in reversed(segments)
        if SEGMENT_BYTES_MIN <= segment.file_bytes <= SEGMENT_BYTES_MAX
        and segment.file_bytes % BLOCK_BYTES == 0
    ]
    round_ones = [size for size in sizes if size % SEGMENT_BYTES_MIN == 0]
    common = Counter(round_ones or sizes).most_common(1)
    return common[0][0] if common else None
