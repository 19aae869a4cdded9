"""Write the golden batches and manifests: `python make_buffer_golden.py [directory]`.

Every file is made with buffer1.py, which knows the format tables and nothing of walengine. The
files are checked in, and a test asserts that this script still writes the same bytes. `<case>.json`
beside `<case>.bin` says what a reader must find:

    why         what the case is about
    entries     of a batch, each in hex
    manifest    the JSON of `walengine buffer manifest dump`; an extension slot as extension_base64
    broken      sequences whose entry is bad, of a manifest that is not
    canonical   whether a writer given the same content writes the same bytes

To add a case, write a function below; its docstring becomes the "why".
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from buffer1 import (
    Entry,
    Manifest,
    batch,
    metadata,
    records,
    skippable_frame,
    zstd_batch,
    zstd_frame,
)

HELLO = (b"hello", b"", b"\x00\xff binary \n", b"x" * 300)
NAMES = (
    b"ingest/01JZ0000000000000000000001.batch",
    b"ingest/01JZ0000010000000000000002.batch",
    b"ingest/01JZ0000020000000000000003.batch",
)
TIME_MS = 1_750_000_000_000

Golden = tuple[bytes, dict[str, Any]]
CASES: dict[str, Callable[[], Golden]] = {}


def golden(make: Callable[[], Golden]) -> Callable[[], Golden]:
    CASES[make.__name__.replace("_", "-")] = make
    return make


# ---- batches -------------------------------------------------------------------------------------


def holds(data: bytes, *entries: bytes, canonical: bool = False) -> Golden:
    return data, {"entries": [entry.hex() for entry in entries], "canonical": canonical}


@golden
def batch_empty() -> Golden:
    """No entries: the footer alone. Nobody writes one; it is a batch all the same."""
    return holds(batch(), canonical=True)


@golden
def batch_one() -> Golden:
    """One entry."""
    return holds(batch(b"hello"), b"hello", canonical=True)


@golden
def batch_four() -> Golden:
    """Four entries: an empty one, one with zeros, one longer than a length byte can say."""
    return holds(batch(*HELLO), *HELLO, canonical=True)


@golden
def batch_only_empty_entries() -> Golden:
    """Three entries without a byte."""
    return holds(batch(b"", b"", b""), b"", b"", b"", canonical=True)


@golden
def batch_zstd() -> Golden:
    """The block as one zstd frame that states its size."""
    block = records(*HELLO)
    return holds(zstd_batch(zstd_frame(block, stated_size=len(block)), len(HELLO)), *HELLO)


@golden
def batch_zstd_no_size() -> Golden:
    """A frame that does not state its size, as streaming compressors write them."""
    return holds(zstd_batch(zstd_frame(records(*HELLO)), len(HELLO)), *HELLO)


@golden
def batch_zstd_repeated() -> Golden:
    """A block of 1,000 zeros as a frame of 13 bytes: 250 empty entries."""
    return holds(zstd_batch(zstd_frame(b"\0", repeat=1000), 250), *[b""] * 250)


@golden
def batch_zstd_many_frames() -> Golden:
    """A block over three frames, parted in mid-entry, one to be skipped and an empty one."""
    block = records(*HELLO)
    frames = (
        zstd_frame(block[:7])
        + skippable_frame(b"skip me")
        + zstd_frame(b"")
        + zstd_frame(block[7:])
    )
    return holds(zstd_batch(frames, len(HELLO)), *HELLO)


@golden
def batch_zstd_nothing() -> Golden:
    """Compressed, and not a single frame: nothing, of no entries."""
    return holds(zstd_batch(b"", 0))


# ---- manifests -----------------------------------------------------------------------------------


def item(start: int, time_ms: int, payload: bytes) -> tuple[bytes, dict[str, Any]]:
    """A metadata item, as bytes and as JSON."""
    shown = base64.b64encode(payload).decode()
    facts = {"start_index": start, "ingestion_time_ms": time_ms, "payload_base64": shown}
    return metadata(start, time_ms, payload), facts


def listed(
    sequence: int,
    location: bytes,
    *items: tuple[bytes, dict[str, Any]],
    extension: bytes = b"",
    **lies: int,
) -> tuple[Entry, dict[str, Any]]:
    """An entry, as bytes and as JSON."""
    entry = Entry(sequence, location, [data for data, _ in items], extension, **lies)
    facts: dict[str, Any] = {
        "sequence": sequence,
        "location": location.decode("utf-8", "replace"),
        "metadata": [fact for _, fact in items],
    }
    if extension:
        facts["extension_base64"] = base64.b64encode(extension).decode()
    return entry, facts


def queue(
    *entries: tuple[Entry, dict[str, Any]],
    next_sequence: int,
    epoch: int,
    canonical: bool = True,
    broken: tuple[int, ...] = (),
) -> Golden:
    data = Manifest([entry for entry, _ in entries], next_sequence, epoch).encode()
    facts = {
        "version": 1,
        "epoch": epoch,
        "next_sequence": next_sequence,
        "entries": [fact for _, fact in entries],
    }
    return data, {"manifest": facts, "canonical": canonical, "broken": list(broken)}


@golden
def manifest_empty() -> Golden:
    """What a missing manifest reads as."""
    return queue(next_sequence=0, epoch=0)


@golden
def manifest_drained() -> Golden:
    """Every batch was dequeued: no entries, and the sequence goes on."""
    return queue(next_sequence=812, epoch=3)


@golden
def manifest_one() -> Golden:
    """One batch of two produce() calls."""
    entry = listed(0, NAMES[0], item(0, TIME_MS, b""), item(17, TIME_MS + 5, b"topic=orders"))
    return queue(entry, next_sequence=1, epoch=1)


@golden
def manifest_three() -> Golden:
    """Three batches behind two that were dequeued; a time before 1970; no metadata at all."""
    entries = (
        listed(2, NAMES[0], item(0, -1, b"\0\xff")),
        listed(3, NAMES[1]),
        listed(4, NAMES[2], item(0, TIME_MS, b"a"), item(1, TIME_MS, b"b"), item(2, TIME_MS, b"c")),
    )
    return queue(*entries, next_sequence=5, epoch=7)


@golden
def manifest_extension() -> Golden:
    """A later version has put something behind the metadata of the first and the last entry."""
    entries = (
        listed(0, NAMES[0], item(0, TIME_MS, b"m"), extension=b"from the future"),
        listed(1, NAMES[1], item(0, TIME_MS, b"m")),
        listed(2, NAMES[2], extension=b"\0"),
    )
    return queue(*entries, next_sequence=3, epoch=1)


@golden
def manifest_other_writers() -> Golden:
    """Locations as another client names them, and a run of calls without entries of their own."""
    run = b"telemetry/01JZ0000000000000000000001/00000000000000"
    entries = (
        listed(0, run + b"0a", item(0, TIME_MS, b"x")),
        listed(1, run + b"0b", item(0, TIME_MS, b""), item(0, TIME_MS, b""), item(4, TIME_MS, b"")),
    )
    return queue(*entries, next_sequence=2, epoch=1)


@golden
def manifest_limits() -> Golden:
    """The largest numbers that the fields of a usable manifest can hold."""
    last = (1 << 64) - 2
    entry = listed(
        last, NAMES[0], item(0, -(1 << 63), b""), item((1 << 32) - 1, (1 << 63) - 1, b"")
    )
    return queue(entry, next_sequence=last + 1, epoch=(1 << 64) - 2)


@golden
def manifest_bad_entries() -> Golden:
    """The middle ones of six entries are bad, each in its way; the first and the last are good."""
    entries = (
        listed(0, NAMES[0], item(0, TIME_MS, b"first")),
        listed(1, b"ingest/\xff\xfe.batch"),
        listed(2, NAMES[1], location_length=400),
        listed(3, NAMES[1], item(0, TIME_MS, b""), metadata_count=2),
        listed(4, NAMES[1], item(3, TIME_MS, b"")),
        listed(5, NAMES[2], item(0, TIME_MS, b"last")),
    )
    return queue(*entries, next_sequence=6, epoch=1, canonical=False, broken=(1, 2, 3, 4))


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        data, facts = make()
        (target / f"{name}.bin").write_bytes(data)
        shown = {"why": (make.__doc__ or "").strip()} | facts
        (target / f"{name}.json").write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "buffer_v1")
