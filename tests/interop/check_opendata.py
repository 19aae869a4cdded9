"""OpenData's published crate and this package read each other's objects.

Run by `make interop`, which builds opendata/ (some 340 crates, minutes) first; it is no part of
`make test` for that reason. The program given by WALENGINE_OPENDATA drives the crate's producer and
consumer on objects that are files; opendata/src/main.rs says how.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from walengine.buffer.batch import decode_batch, encode_batch
from walengine.buffer.compression import CompressionType
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import BatchNamer, parse_batch_name
from walengine.buffer.manifest import Manifest

PROGRAM = os.environ["WALENGINE_OPENDATA"]
MANIFEST = "ingest/manifest"

# Calls of produce(metadata, entries), batch by batch.
BATCHES = [
    [(b"topic=a", [b"one"])],
    [(b"", [b"", b"two", b"\x00\xff"]), (b"\x00", [b"x" * 70_000]), (b"c" * 300, [b"3", b"4"])],
    [(b"m%d" % call, [b"entry %d.%d" % (call, i) for i in range(50)]) for call in range(200)],
]


def opendata(*arguments: object, calls: str = "") -> list[str]:
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], input=calls, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write_theirs(directory: Path, compression: str) -> None:
    lines = []
    for calls in BATCHES:
        for payload, entries in calls:
            lines.append(" ".join(["produce", payload.hex(), *(entry.hex() for entry in entries)]))
        lines.append("flush")
    opendata("write", directory, compression, calls="\n".join(lines))


def write_ours(directory: Path, compression: CompressionType, manifest: Manifest) -> Manifest:
    """Put BATCHES behind what the manifest lists."""
    namer = BatchNamer("ingest")
    for calls in BATCHES:
        items, entries = [], []
        for time_ms, (payload, more) in enumerate(calls, 1_750_000_000_000):
            items.append(Metadata(len(entries), time_ms, payload))
            entries += more
        name = namer.new()
        path = directory / name.location
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_batch(entries, compression))
        manifest = manifest.append([Listing(name.location, items)])
    (directory / MANIFEST).write_bytes(manifest.data)
    return manifest


def read_ours(directory: Path) -> list[list[tuple[bytes, list[bytes]]]]:
    """What our codecs find, as calls again."""
    manifest = Manifest.parse((directory / MANIFEST).read_bytes(), MANIFEST)
    assert manifest.sequences.start == 0
    found = []
    for listed in manifest.entries():
        assert parse_batch_name(listed.location, "ingest") is not None
        entries = decode_batch((directory / listed.location).read_bytes(), listed.location)
        listed.check_records(len(entries))
        ends = [item.start_index for item in listed.metadata[1:]] + [len(entries)]
        found.append(
            [
                (item.payload, entries[item.start_index : end])
                for item, end in zip(listed.metadata, ends, strict=True)
            ]
        )
    return found


def read_theirs(directory: Path) -> list[str]:
    return opendata("read", directory)


def lines_of(directory: Path) -> list[str]:
    """What their consumer should print of the objects in directory."""
    manifest = Manifest.parse((directory / MANIFEST).read_bytes(), MANIFEST)
    lines = []
    for listed, calls in zip(manifest.entries(), read_ours(directory), strict=True):
        lines.append(f"batch {listed.sequence} {listed.location}")
        for start, time_ms, payload in listed.metadata:
            lines.append(f"metadata {start} {time_ms} {payload.hex()}")
        lines += [f"entry {entry.hex()}" for _, entries in calls for entry in entries]
    return lines


@pytest.mark.parametrize("compression", CompressionType)
def test_we_read_theirs(tmp_path, compression):
    write_theirs(tmp_path, compression.value)
    assert read_ours(tmp_path) == BATCHES


@pytest.mark.parametrize("compression", CompressionType)
def test_they_read_ours(tmp_path, compression):
    write_ours(tmp_path, compression, Manifest.empty(MANIFEST))
    assert read_ours(tmp_path) == BATCHES
    assert read_theirs(tmp_path) == lines_of(tmp_path)


def test_both_write_into_one_queue(tmp_path):
    write_theirs(tmp_path, "zstd")
    theirs = Manifest.parse((tmp_path / MANIFEST).read_bytes(), MANIFEST)
    write_ours(tmp_path, CompressionType.NONE, theirs)
    assert read_ours(tmp_path) == BATCHES + BATCHES
    assert read_theirs(tmp_path) == lines_of(tmp_path)


def test_uncompressed_bytes_are_the_same(tmp_path):
    """Method: encode what we decode from theirs, and compare objects."""
    write_theirs(tmp_path, "none")
    raw = (tmp_path / MANIFEST).read_bytes()
    theirs = Manifest.parse(raw, MANIFEST)
    assert Manifest.empty(MANIFEST).append(list(theirs.entries())).data == raw
    for listed in theirs.entries():
        data = (tmp_path / listed.location).read_bytes()
        assert encode_batch(decode_batch(data, listed.location)) == data


def test_an_extension_slot_does_not_disturb_them(tmp_path):
    manifest = write_ours(tmp_path, CompressionType.NONE, Manifest.empty(MANIFEST))
    extended = [
        Listing(entry.location, entry.metadata, b"of a later version")
        for entry in manifest.entries()
    ]
    (tmp_path / MANIFEST).write_bytes(Manifest.empty(MANIFEST).append(extended).data)
    assert read_theirs(tmp_path) == lines_of(tmp_path)
