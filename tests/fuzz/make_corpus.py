"""Write the fuzzers' corpora from the golden logs: `python make_corpus.py [directory]`.

scan: each golden log as an image (memory_io.h), as it is and with the control bits that repair
checksums after a mutation. headers: META, a segment header, frames and an INDEX of one of them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "v1"
FILES_MAX = 5
CONTROLS = (0, 39)  # as it is; blocks, frames, links and sizes put right


def runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The stretches of 64 bytes that are not zero, and the last 8 bytes: the file's length."""
    at = 0
    while at < len(data):
        end = at
        while end < len(data) and any(data[end : end + 64]):
            end += 64
        if end > at:
            yield at, data[at:end]
        at = end + 64
    yield len(data) - 8, data[-8:]


def image(log: Path) -> bytes:
    """The patches that make this log."""
    patches = []
    for path in sorted(log.iterdir()):
        number = (
            0 if path.name == "META" else int(path.name[4:20], 16) if "wal-" in path.name else -1
        )
        if not 0 <= number < FILES_MAX:
            continue
        for at, data in runs(path.read_bytes()):
            patches.append(struct.pack("<BHH", number, at // 8, len(data)) + data)
    return b"".join(patches)


def headers(log: Path) -> Iterator[tuple[str, bytes]]:
    """One input for each decoder of fuzz_headers."""
    segment = (log / "wal-0000000000000001.seg").read_bytes()
    yield "meta", b"\0" + (log / "META").read_bytes()[:1152]
    yield "segment", b"\1" + segment[:128] + segment[4096:4160]
    yield "name", b"\4wal-0000000000000001.seg"
    at = 8192
    while segment[at : at + 4] == b"WFRM":
        size, kind = struct.unpack_from("<I16xH", segment, at + 8)
        payload = segment[at + 64 : at + 64 + size]
        yield f"frame-{at}", b"\2" + segment[at : at + 64] + payload
        if kind == 0x8003:
            yield "index", b"\3" + struct.pack("<Q", 3) + payload
        at += -(-(64 + size) // 8) * 8


def main(target: Path) -> None:
    scans, singles = target / "scan", target / "headers"
    for directory in (scans, singles):
        directory.mkdir(parents=True, exist_ok=True)
    for log in sorted(GOLDEN.iterdir()):
        for control in CONTROLS:
            (scans / f"{log.name}-{control}").write_bytes(bytes([control]) + image(log))
    for name, data in headers(GOLDEN / "frame-types"):
        (singles / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "corpus")
