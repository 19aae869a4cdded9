"""Batches and manifests from strangers: an error that says where, and no memory to speak of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest

from walengine.buffer import FormatError
from walengine.buffer.batch import decode_batch
from walengine.buffer.manifest import Manifest

pytestmark = pytest.mark.not_quick

HERE = Path(__file__).parent
GOLDEN = sorted((HERE.parent / "golden" / "buffer_v1").glob("*.bin"))

CASES = {
    f"{kind}: {name}": wanted
    for kind, make in hostile.KINDS.items()
    for name, (_, wanted) in make().items()
}


@pytest.fixture(scope="module")
def outcomes():
    """What came of every case, from one process with 256 MiB of address space."""
    done = subprocess.run(
        [sys.executable, HERE / "hostile.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_every_case_came_to_an_end(outcomes, count):
    count("hostile objects", len(outcomes))
    assert outcomes.keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_hostile_bytes(outcomes, case):
    """Goal: the error says what is wrong, names the object and the offset; or all is well."""
    found = outcomes[case]
    assert "unexpected" not in found
    if CASES[case] is None:
        assert "text" not in found
        return
    assert re.search(CASES[case], found["text"])
    assert found["object"] == "the/object"
    assert f"(at offset {found['offset']}" in found["text"]
    assert found["sequence"] == (1 if case.startswith("entry") else None)


def test_the_cap_is_what_saves_us(tmp_path):
    """A decoder that believes what a frame states would not survive the case with the bomb."""
    source = (
        "import resource, zstandard, hostile\n"
        "resource.setrlimit(resource.RLIMIT_AS, (hostile.MEMORY_BYTES,) * 2)\n"
        "data = hostile.zstd_bomb(512 << 20, stated=True)[:-7]\n"
        "zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert "MemoryError" in done.stderr


# ---- every flip, every cut -----------------------------------------------------------------------


def damaged(data: bytes):
    """Every single bit flipped, and every length that is too short."""
    for at in range(len(data)):
        yield data[:at]
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            yield bytes(flipped)


def error_of(read, *arguments, **options) -> FormatError | None:
    """What reading raises, if it does; any other exception is a failed test."""
    try:
        read(*arguments, **options)
    except FormatError as error:
        return error
    return None


def errors_in(path: Path, data: bytes) -> Iterator[tuple[FormatError | None, int | None]]:
    """Read everything there is to read; yield errors, and the sequences they should name."""
    if path.name.startswith("batch"):
        yield error_of(decode_batch, data, path.name, max_batch_bytes=1 << 20), None
        return
    yield (error := error_of(Manifest.parse, data, path.name)), None
    if error is None:
        manifest = Manifest.parse(data, path.name)
        assert manifest.append([]).data == data
        manifest.find(["0" * 16])
        for sequence in manifest.sequences:
            yield error_of(manifest.entry, sequence, ["ingest"]), sequence


def test_flips_and_cuts_raise_nothing_else(count):
    total = 0
    for path in GOLDEN:
        for data in damaged(path.read_bytes()):
            total += 1
            for error, sequence in errors_in(path, data):
                if error is not None:
                    assert (error.object, error.sequence) == (path.name, sequence)
                    assert f"(at offset {error.offset}" in str(error)
    count("flips and cuts", total)
    assert total > 20_000
