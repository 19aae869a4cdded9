"""Bytes that nobody should send: every class of bad batch and bad manifest, by name.

A case is bytes and what must come of them: a pattern that the FormatError's text matches, or None
where a reader has to put up with it. `python hostile.py` decodes them all, one line of JSON each; a
test runs that with its memory capped.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))

from buffer1 import (
    RAW_BLOCK,
    Entry,
    Manifest,
    batch,
    batch_footer,
    metadata,
    records,
    zstd_batch,
    zstd_block,
    zstd_frame,
)

MIB = 1 << 20
MEMORY_BYTES = 256 * MIB
MAX_BATCH_BYTES = 8 * MIB
PREFIXES = ("ingest", "other/place")
U32_MAX, U64_MAX = (1 << 32) - 1, (1 << 64) - 1

GOOD = b"ingest/01JZ0000000000000000000001.batch"
FINE = None

Cases = dict[str, tuple[bytes, str | None]]


def batches() -> Cases:
    """Bad batches."""
    framed = records(b"one", b"two")
    cases: Cases = {
        "empty object": (b"", "0 bytes are shorter than a footer"),
        "shorter than a footer": (batch()[:6], "6 bytes are shorter than a footer"),
        "version 0": (batch_footer(0, 0, 0), "version 0"),
        "version 2": (framed + batch_footer(0, 2, 2), "version 2"),
        "count 2^32-1 with 7 bytes": (batch_footer(0, U32_MAX), "4294967295 entries do not fit"),
        "count one too high": (framed + batch_footer(0, 3), "2 entries, the footer says 3"),
        "count one too low": (framed + batch_footer(0, 1), "2 entries, the footer says 1"),
        "count 0 with entries": (framed + batch_footer(0, 0), "2 entries, the footer says 0"),
        "length past the end": (
            struct.pack("<I", 4) + b"abc" + batch_footer(0, 1), "entry 0 has 4 bytes, 3 are there",
        ),
        "length 2^32-1": (
            framed + struct.pack("<I", U32_MAX) + batch_footer(0, 3), "entry 2 has 4294967295",
        ),
        "length cut": (framed + b"\1\0\0" + batch_footer(0, 2), "entry 2 has no whole length"),
        "junk behind the last entry": (framed + b"\7" + batch_footer(0, 2), "entry 2 has no whole"),
    }  # fmt: skip
    for code in (2, 3, 127, 255):
        cases[f"compression {code}"] = (framed + batch_footer(code, 2), f"compression {code}")
    return cases | zstd_batches(framed)


def zstd_batches(framed: bytes) -> Cases:
    """Bad frames in batches."""
    whole = zstd_frame(framed, stated_size=len(framed))
    cases: Cases = {
        "zstd: no frame": (zstd_batch(b"", 2), "2 entries do not fit into 0 bytes of the decomp"),
        "zstd: not a frame": (zstd_batch(b"no frame at all", 2), "zstd "),
        "zstd: header only": (zstd_batch(whole[:14], 2), "the zstd frame is cut"),
        "zstd: last block missing": (zstd_batch(whole[:-3], 2), "the zstd frame is cut"),
        "zstd: junk behind": (zstd_batch(whole + b"junk", 2), "zstd|cut"),
        "zstd: zeros behind": (zstd_batch(whole + bytes(64), 2), "zstd "),
        "zstd: states less": (zstd_batch(zstd_frame(framed, stated_size=3), 2), "zstd "),
        "zstd: states more": (zstd_batch(zstd_frame(framed, stated_size=99), 2), "zstd "),
        "zstd: states 2^40": (zstd_batch(zstd_frame(framed, stated_size=1 << 40), 2), "the frame"),
        "zstd: states 2^64-2": (zstd_batch(zstd_frame(framed, stated_size=U64_MAX - 1), 2), "zstd"),
        "zstd: states no size": (zstd_batch(zstd_frame(framed), 2), FINE),
        "zstd: two frames": (zstd_batch(zstd_frame(framed[:5]) + zstd_frame(framed[5:]), 2), FINE),
        "zstd: a dictionary": (zstd_batch(zstd_frame(framed, dictionary=7), 2), "zstd "),
        "zstd: reserved block type": (
            zstd_batch(zstd_frame(b"")[:-3] + zstd_block(3, b"", 0, last=True), 0), "zstd ",
        ),
        "zstd: block larger than its window": (
            zstd_batch(zstd_frame(b"")[:-3] + zstd_block(RAW_BLOCK, bytes(2048), 2048), 1),
            "zstd ",
        ),
        "zstd: window of 8 MiB": (zstd_batch(zstd_frame(framed, window_log=23), 2), FINE),
        "zstd: entry cut": (zstd_batch(zstd_frame(framed[:-1]), 2), "entry 1 has 3 bytes, 2 are"),
        "zstd: length cut": (zstd_batch(zstd_frame(framed + b"\0"), 2), "entry 2 has no whole"),
        "zstd: as large as allowed": (zstd_bomb(MAX_BATCH_BYTES), FINE),
        "zstd: one byte larger": (zstd_bomb(MAX_BATCH_BYTES + 1), "more than max_batch_bytes"),
        "zstd: 16 KB for 512 MiB": (zstd_bomb(512 * MIB), "more than max_batch_bytes"),
        "zstd: 512 MiB, as stated": (zstd_bomb(512 * MIB, stated=True), "more than max_batch"),
        "zstd: 4,000 frames of 128 KiB": (
            zstd_batch(zstd_frame(b"\0", repeat=128 << 10, window_log=17) * 4000, 1), "max_batch",
        ),
        "zstd: 200,000 empty frames": (zstd_batch(zstd_frame(b"") * 200_000, 0), FINE),
    }  # fmt: skip
    for log in (24, 27, 28, 31, 41):
        frame = zstd_frame(framed, window_log=log)
        cases[f"zstd: window of 2^{log}"] = (zstd_batch(frame, 2), "requires too much memory")
    return cases


def zstd_bomb(size: int, *, stated: bool = False) -> tuple[bytes, int]:
    """Zeros: empty entries, as many as fit. (With a size that is no multiple of 4: one is cut.)"""
    frame = zstd_frame(b"\0", repeat=size, window_log=17, stated_size=size if stated else None)
    return zstd_batch(frame, size // 4)


def manifests() -> Cases:
    """Manifests whose framing is broken, or is not."""
    good = Entry(0, GOOD, [metadata(0, 1, b"payload")])
    next_one = Entry(1, GOOD, [metadata(0, 1, b"")])
    cases: Cases = {
        "empty object": (b"", "0 bytes are shorter than a footer"),
        "shorter than a footer": (bytes(21), "21 bytes are shorter than a footer"),
        "version 0": (bytes(22), "version 0"),
        "version 2": (Manifest(version=2).encode(), "version 2"),
        "count too high": (Manifest([good], 1, 1, count=2).encode(), "2 entries before sequence 1"),
        "count one too high": (Manifest([next_one], 2, 1, count=2).encode(), "sequence 1, not 0"),
        "count one too low": (
            Manifest([good, next_one], 2, 1, count=1).encode(), "sequence 0, not 1",
        ),
        "count 0 with entries": (Manifest([good], 0, 1, count=0).encode(), "1 entries, the foot"),
        "count 2^32-1": (Manifest([], U64_MAX, 1, count=U32_MAX).encode(), "0 entries, the foot"),
        "sequence twice": (Manifest([good, good], 2, 1).encode(), "entry 1 has sequence 0, not 1"),
        "sequence gap": (
            Manifest([good, Entry(2, GOOD)], 3, 1).encode(), "entry 0 has sequence 0, not 1",
        ),
        "sequences backwards": (
            Manifest([next_one, good], 2, 1).encode(), "entry 0 has sequence 1, not 0",
        ),
        "next sequence too low": (
            Manifest([good, next_one], 1, 1).encode(), "2 entries before sequence 1",
        ),
        "next sequence too high": (Manifest([good], 2, 1).encode(), "sequence 0, not 1"),
        "sequence 2^64-1": (Manifest([Entry(U64_MAX, GOOD)], 0, 1).encode(), "1 entries before"),
        "epoch 2^64-1": (Manifest([good], 1, U64_MAX).encode(), FINE),
        "junk behind the last entry": (Manifest([good], 1, 1, junk=b"\1").encode(), "entry 1"),
        "footer twice": (Manifest([good], 1, 1, junk=Manifest().encode()).encode(), "entry 1"),
        "length past the end": (
            Manifest([Entry(0, GOOD, rest=54)], 1, 1).encode(), "entry 0 runs into the footer",
        ),
        "length 2^32-1": (Manifest([Entry(0, GOOD, rest=U32_MAX)], 1, 1).encode(), "into the foot"),
        "500,000 entries": (
            Manifest([Entry(i, b"x/" + GOOD[:1]) for i in range(500_000)], 500_000, 1).encode(),
            FINE,
        ),
    }  # fmt: skip
    for rest in range(14):
        data = Manifest([Entry(0, b"", rest=rest)], 1, 1).encode()
        cases[f"entry length {rest}"] = (data, f"entry 0 cannot have a length of {rest} ")
    return cases


def entries() -> Cases:
    """Manifests that are fine but for one of their entries."""
    cases: Cases = {}
    locations = {
        "not UTF-8": (b"ingest/\xff.batch", "not UTF-8"),
        "surrogate": (b"ingest/\xed\xa0\x80.batch", "not UTF-8"),
        "empty": (b"", "empty"),
        "NUL": (b"ingest/a\0b", "no character '.x00'"),
        "newline": (b"ingest/a\nb", "no character '.n'"),
        "absolute": (b"/ingest/a", "slash"),
        "..": (b"ingest/../secret", "no segment '..'"),
        ".": (b"ingest/./a", "no segment '.'"),
        "only ..": (b"..", "no segment '..'"),
        "trailing slash": (b"ingest/", "slash"),
        "doubled slash": (b"ingest//a", "slash"),
        "%2e%2e": (b"ingest/%2e%2e/secret", "no character '%'"),
        "backslash": (b"ingest\\..\\secret", "no character"),
        "not ASCII": ("ingest/ä".encode(), "no character"),
        "65,535 bytes": (b"ingest/" + b"a" * 65528, "bytes"),
        "too many bytes": (b"ingest" + b"/a" * 600, "at most 1024 bytes"),
        "the local store's own": (b"ingest/.walengine.lock", "local store"),
        "other prefix": (b"elsewhere/a.batch", "outside of ingest/ and other/place/"),
        "prefix without a name": (b"ingest", "outside of"),
        "prefix as the start of a name": (b"ingested/a.batch", "outside of"),
    }
    for name, (location, problem) in locations.items():
        cases[f"location: {name}"] = (with_bad(Entry(1, location)), problem)
    item = metadata(0, 1, b"payload")
    bad = {
        "location past the entry": (Entry(1, GOOD, location_length=len(GOOD) + 1), "does not fit"),
        "location length 65,535": (Entry(1, GOOD, location_length=65535), "does not fit"),
        "metadata count 2^32-1": (Entry(1, GOOD, metadata_count=U32_MAX), "4294967295 metadata"),
        "metadata count one too high": (Entry(1, GOOD, [item], metadata_count=2), "do not fit"),
        "metadata cut": (
            Entry(1, GOOD, [item, b"\1" * 10, b"\1" * 4], metadata_count=2), "metadata 1 is cut",
        ),
        "payload past the entry": (Entry(1, GOOD, [metadata(0, 1, b"abc", 4)]), "has 4 bytes: cut"),
        "payload length 2^32-1": (
            Entry(1, GOOD, [metadata(0, 1, b"", U32_MAX)]), "has 4294967295 bytes: cut",
        ),
        "start indexes descend": (
            Entry(1, GOOD, [metadata(0, 1, b""), metadata(9, 1, b""), metadata(8, 1, b"")]),
            "metadata 2 begins at 8",
        ),
        "start indexes from 1": (Entry(1, GOOD, [metadata(1, 1, b"")]), "metadata 0 begins at 1"),
    }  # fmt: skip
    return cases | {name: (with_bad(entry), problem) for name, (entry, problem) in bad.items()}


def with_bad(entry: Entry) -> bytes:
    """A manifest of three entries, the middle one bad."""
    around = [Entry(at, GOOD, [metadata(0, 1, b"good")]) for at in (0, 2)]
    return Manifest([around[0], entry, around[1]], 3, 1).encode()


KINDS = {"batch": batches, "manifest": manifests, "entry": entries}


# ---- in the process whose memory is capped -------------------------------------------------------


def outcomes() -> Iterator[dict[str, Any]]:
    for kind, make in KINDS.items():
        for name, (data, _) in make().items():
            yield {"case": f"{kind}: {name}"} | outcome(kind, data)


def outcome(kind: str, data: bytes) -> dict[str, Any]:
    """What came of the bytes: an error's facts, or nothing."""
    from walengine.buffer import FormatError  # noqa: PLC0415 (after the cap)

    try:
        decode(kind, data)
    except FormatError as error:
        facts = {"object": error.object, "offset": error.offset, "sequence": error.sequence}
        return {"text": str(error)} | facts
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
        return {"unexpected": f"{type(error).__name__}: {error}"}
    return {}


def decode(kind: str, data: bytes) -> None:
    from walengine.buffer.batch import decode_batch  # noqa: PLC0415
    from walengine.buffer.manifest import Manifest  # noqa: PLC0415

    if kind == "batch":
        decode_batch(data, "the/object", max_batch_bytes=MAX_BATCH_BYTES)
        return
    manifest = Manifest.parse(data, "the/object")
    if kind == "entry":
        manifest.entry(0, PREFIXES)
        manifest.entry(2, PREFIXES)
        manifest.find(["0" * 16])
        manifest.append([]).dequeue(0)
        manifest.entry(1, PREFIXES)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in outcomes():
        print(json.dumps(line), flush=True)
