"""Where the machine tells about itself; tests put made-up trees of other machines there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

TEXT_BYTES_MAX = 1 << 20  # mountinfo and locks of a busy machine; nothing read here is longer


@dataclasses.dataclass(frozen=True, slots=True)
class Roots:
    """Directories that the probes read.

    Attributes:
        proc: In place of /proc.
        sys: In place of /sys.
        top: In place of /, for the marks that containers leave there.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    top: Path = Path("/")


def read_text(path: Path) -> str | None:
    """Return a file's text without the white space around it; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(TEXT_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """Return the number that a file holds; None where it holds none."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def field(text: str | None, name: str) -> str | None:
    """Return the value of a line 'name: value', as /proc/self/status has them."""
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None
