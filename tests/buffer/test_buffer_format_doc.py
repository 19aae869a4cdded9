"""docs/BUFFER_FORMAT.md: its tables have no gap, and its example is what the codecs say it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from processes import cli, ends

from walengine.buffer.batch import decode_batch, encode_batch
from walengine.buffer.entry import Listing, Metadata
from walengine.buffer.location import normalise_path, parse_batch_name
from walengine.buffer.manifest import Manifest

PAGE = (Path(__file__).parents[2] / "docs" / "BUFFER_FORMAT.md").read_text(encoding="utf-8")
LOCATION = "ingest/01JZ0000000000000000000001.batch"
ENTRIES = [b"hello", b"", b"world!"]
LISTING = Listing(
    LOCATION, (Metadata(0, 1_750_000_000_000, b"a=1"), Metadata(2, 1_750_000_000_123, b""))
)

ROW = re.compile(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?){1,16}) *\|(.*)\|$", re.MULTILINE)


def example(name: str) -> bytes:
    size, rows = re.search(
        rf"```hexdump {re.escape(name)} (\d+)\n(.*?)```", PAGE, re.DOTALL
    ).groups()
    data = b""
    for offset, digits, shown in ROW.findall(rows):
        assert int(offset, 16) == len(data)
        row = bytes.fromhex(digits)
        assert shown == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        data += row
    assert len(data) == int(size)
    return data


def test_the_batch_of_the_example():
    data = example(LOCATION)
    assert decode_batch(data, LOCATION) == ENTRIES
    assert encode_batch(ENTRIES) == data
    assert data[0x17:] == bytes([0, 3, 0, 0, 0, 1, 0])
    assert parse_batch_name(LOCATION, "ingest") is not None


def test_the_manifest_of_the_example():
    data = example("ingest/manifest")
    manifest = Manifest.parse(data, "ingest/manifest")
    assert (manifest.epoch, manifest.sequences) == (3, range(41, 42))
    manifest.entry(41, ["ingest"]).check_records(len(ENTRIES))
    assert Manifest((), [], 41, 3, "ingest/manifest").append([LISTING]).data == data
    assert (data[0x0E:0x14], data[0x39 : 0x39 + 4], data[0x5C]) == (b"ingest", bytes(4), 1)


def test_the_dump_of_the_example(tmp_path):
    path = tmp_path / "manifest"
    path.write_bytes(example("ingest/manifest"))
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    result = cli("buffer", "manifest", "dump", path)
    assert ends(result, 0)
    assert result.stdout.decode() == shown
    assert json.loads(shown)["entries"][0]["location"] == LOCATION


@pytest.mark.parametrize(("title", "first"), [("batch footer", 7), ("manifest footer", 22)])
def test_footers_have_no_gap(title, first):
    """Each field begins where the one before ends, and the last ends the object."""
    (table,) = re.findall(rf"^\| {title}: .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    fields = [
        tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) ", table, re.MULTILINE)
    ]
    assert fields[0][0] == first
    ends_at = [start - size for start, size in fields]
    assert ends_at == [start for start, _ in fields[1:]] + [0]


def test_every_character_that_the_page_excludes_is_refused():
    (excluded,) = re.findall(r"``(.+?)``\.", PAGE)
    for character in map(chr, range(0x300)):
        path = f"a{character}b"
        if " " <= character <= "~" and character not in excluded.split():
            assert normalise_path(path) == path
        else:
            with pytest.raises(ValueError, match="no character"):
                normalise_path(path)
