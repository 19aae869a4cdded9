"""The golden batches and manifests: read, and where a writer has no choice, written the same.

The files were written by golden/make_buffer_golden.py, which knows the format tables and nothing of
walengine. The JSON beside each says what a reader must find.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from walengine.buffer import FormatError
from walengine.buffer.batch import decode_batch, encode_batch
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.manifest import Manifest

GOLDEN = Path(__file__).parent.parent / "golden"
STORED = GOLDEN / "buffer_v1"
FACTS = {path.stem: json.loads(path.read_text()) for path in sorted(STORED.glob("*.json"))}
BATCHES = [name for name in FACTS if name.startswith("batch-")]
MANIFESTS = [name for name in FACTS if name.startswith("manifest-")]
CANONICAL = {name for name, facts in FACTS.items() if facts["canonical"]}


def data_of(name: str) -> bytes:
    return (STORED / f"{name}.bin").read_bytes()


def listing_of(entry: dict) -> Listing:
    return Listing(
        entry["location"],
        tuple(
            Metadata(
                item["start_index"],
                item["ingestion_time_ms"],
                base64.b64decode(item["payload_base64"]),
            )
            for item in entry["metadata"]
        ),
        base64.b64decode(entry.get("extension_base64", "")),
    )


def test_the_script_still_writes_these_bytes(tmp_path):
    """Neither the format nor its description can drift: run the script, compare every file."""
    subprocess.run([sys.executable, GOLDEN / "make_buffer_golden.py", tmp_path], check=True)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in STORED.iterdir()}
    assert len(written) == 2 * len(FACTS)


def test_both_kinds_and_both_directions_are_among_them():
    assert len(BATCHES) >= 9
    assert len(MANIFESTS) >= 8
    assert len(CANONICAL & set(BATCHES)) >= 4
    assert len(CANONICAL & set(MANIFESTS)) >= 7


@pytest.mark.parametrize("name", BATCHES)
def test_batches_are_read(name):
    wanted = [bytes.fromhex(entry) for entry in FACTS[name]["entries"]]
    assert decode_batch(data_of(name), name) == wanted


@pytest.mark.parametrize("name", [name for name in BATCHES if name in CANONICAL])
def test_batches_are_written(name):
    entries = [bytes.fromhex(entry) for entry in FACTS[name]["entries"]]
    assert encode_batch(entries) == data_of(name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_read(name):
    facts = FACTS[name]
    wanted = facts["manifest"]
    manifest = Manifest.parse(data_of(name), name)
    assert (manifest.epoch, manifest.next_sequence) == (wanted["epoch"], wanted["next_sequence"])
    assert list(manifest.sequences) == [entry["sequence"] for entry in wanted["entries"]]
    for entry in wanted["entries"]:
        sequence = entry["sequence"]
        if sequence in facts["broken"]:
            with pytest.raises(FormatError, match=f"sequence {sequence}"):
                manifest.entry(sequence)
            continue
        found = manifest.entry(sequence)
        assert found.sequence == sequence
        assert Listing(found.location, found.metadata, found.extension) == listing_of(entry)


@pytest.mark.parametrize("name", [name for name in MANIFESTS if name in CANONICAL])
def test_manifests_are_written(name):
    """Method: append everything to a manifest that was drained up to the first sequence."""
    wanted = FACTS[name]["manifest"]
    first = wanted["next_sequence"] - len(wanted["entries"])
    empty = Manifest((), [], first, wanted["epoch"], name)
    assert empty.append(map(listing_of, wanted["entries"])).data == data_of(name)


def test_a_missing_manifest_is_the_empty_one():
    assert Manifest.empty("any").data == data_of("manifest-empty")
