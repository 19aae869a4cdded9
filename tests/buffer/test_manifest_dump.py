"""`walengine buffer manifest dump`: OpenData's JSON, and what it says of damage and mistakes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from processes import cli, ends

GOLDEN = Path(__file__).parent.parent / "golden" / "buffer_v1"
FACTS = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("manifest-*.json"))}
SOUND = [name for name, facts in FACTS.items() if not facts["broken"]]


def dump(*arguments, **options):
    return cli("buffer", "manifest", "dump", *arguments, **options)


@pytest.mark.parametrize("name", ["manifest-empty", "manifest-three", "manifest-extension"])
def test_a_manifest_is_shown_as_json(name):
    result = dump(GOLDEN / f"{name}.bin")
    assert ends(result, 0)
    assert json.loads(result.stdout) == FACTS[name]["manifest"]
    assert result.stderr == b""


def test_fields_stand_in_the_order_of_the_document():
    shown = json.loads(dump(GOLDEN / "manifest-one.bin").stdout)
    assert list(shown) == ["version", "epoch", "next_sequence", "entries"]
    assert list(shown["entries"][0]) == ["sequence", "location", "metadata"]
    item = shown["entries"][0]["metadata"][0]
    assert list(item) == ["start_index", "ingestion_time_ms", "payload_base64"]


def test_bad_entries_do_not_hide_the_good_ones():
    """Goal: an operator sees what is left, and the exit code says that something is wrong."""
    facts = FACTS["manifest-bad-entries"]
    path = GOLDEN / "manifest-bad-entries.bin"
    result = dump(path)
    assert ends(result, 4, *(f"sequence {sequence}: .*at offset" for sequence in facts["broken"]))
    shown = json.loads(result.stdout)["entries"]
    for entry, wanted in zip(shown, facts["manifest"]["entries"], strict=True):
        if wanted["sequence"] in facts["broken"]:
            assert list(entry) == ["sequence", "error", "offset"]
            assert entry["sequence"] == wanted["sequence"]
            assert entry["error"].startswith(f"manifest {path}: sequence {wanted['sequence']}: ")
        else:
            assert entry == wanted


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes are shorter than a footer of 22 .at offset 0"),
        (b"not a manifest at all, not even by chance", "version .*at offset 39"),
        ((GOLDEN / "manifest-one.bin").read_bytes()[1:], "entry 0 .*at offset 0"),
    ],
)
def test_what_is_no_manifest_is_corrupt(tmp_path, data, problem):
    path = tmp_path / "file"
    path.write_bytes(data)
    result = dump(path)
    assert ends(result, 4, f"walengine: manifest {path}: {problem}")
    assert result.stdout == b""


def test_mistakes_get_a_sentence(tmp_path):
    assert ends(dump(tmp_path / "none"), 1, "No such file")
    assert ends(dump(tmp_path), 1, "Is a directory")
    assert ends(dump(), 2, "name a file as MANIFEST, or give --store")
    assert ends(cli("buffer", "manifest", "drop"), 2, "No such command")
    assert dump("--help").returncode == 0


def test_a_file_too_large_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 1 << 40)
    assert ends(dump(path), 4, "more than 1073741824 bytes")


# ---- in a store ----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """A directory that is a store, with a queue in its usual place and one elsewhere."""
    directory = tmp_path / "a queue"
    for place, name in (("ingest", "manifest-three"), ("other/place", "manifest-bad-entries")):
        (directory / place).mkdir(parents=True, mode=0o700)
        (directory / place / "manifest").write_bytes((GOLDEN / f"{name}.bin").read_bytes())
    return directory


def objects_in(directory):
    """Its files but for the store's own lock."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if ".walengine" not in path.parts}


def test_a_store_is_read_and_left_as_it_is(store):
    before = objects_in(store)
    result = dump("--store", store.as_uri())
    assert ends(result, 0)
    assert json.loads(result.stdout) == FACTS["manifest-three"]["manifest"]
    assert objects_in(store) == before


def test_the_manifest_may_be_elsewhere(store):
    url = store.as_uri()
    result = dump("other/place/manifest", "--store", f"{url}/")
    assert ends(result, 4, f"walengine: manifest {url}/other/place/manifest: sequence 1: ")
    assert len(json.loads(result.stdout)["entries"]) == 6


def test_mistakes_with_a_store_get_a_sentence(store, tmp_path):
    url = store.as_uri()
    assert ends(dump("ingest/none", "--store", url), 1, f"there is no ingest/none in {url}")
    assert ends(dump("--store", (tmp_path / "none").as_uri()), 1)
    assert ends(dump("../secret", "--store", url), 2, "no segment '..'")
    assert ends(dump("--store", "ftp://host/x"), 2, "file:///DIRECTORY")
    assert ends(dump("--store", "file://a/b"), 2, "three slashes")
    assert ends(dump("--store", f"{url}?x=1"), 2, "write . as %3F")
    assert not (tmp_path / "none").exists()
