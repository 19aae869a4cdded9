"""Fuzz the decoders of batches and manifests: `make fuzz-buffer`.

Every input goes to both decoders. What they may raise is FormatError, naming the object; and what
they accept must be the format: encoded again it is the same bytes, where a writer has no choice.
The corpus starts from the golden files and from the hostile ones that are small.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "buffer"))

with atheris.instrument_imports(include=["walengine.buffer"]):
    import hostile

    from walengine.buffer import FormatError
    from walengine.buffer.batch import decode_batch, encode_batch
    from walengine.buffer.entry import encode_entry
    from walengine.buffer.location import location_problem
    from walengine.buffer.manifest import Manifest

NAME = "the/object"
MAX_BATCH_BYTES = 1 << 20
SEED_BYTES_MAX = 4096


def one_input(data: bytes) -> None:
    check_batch(data)
    check_manifest(data)


def check_batch(data: bytes) -> None:
    try:
        entries = decode_batch(data, NAME, max_batch_bytes=MAX_BATCH_BYTES)
    except FormatError as error:
        check_error(error, None)
        return
    assert sum(4 + len(entry) for entry in entries) <= MAX_BATCH_BYTES
    if data[-7] == 0:
        assert encode_batch(entries) == data


def check_manifest(data: bytes) -> None:
    try:
        manifest = Manifest.parse(data, NAME)
    except FormatError as error:
        check_error(error, None)
        return
    assert manifest.append([]).data == data
    assert manifest.dequeue(manifest.next_sequence).sequences.stop == manifest.next_sequence
    manifest.find({"0" * 16})
    for sequence in manifest.sequences:
        check_entry(manifest, sequence)


def check_entry(manifest: Manifest, sequence: int) -> None:
    try:
        entry = manifest.entry(sequence)
    except FormatError as error:
        check_error(error, sequence)
        return
    if location_problem(entry.location, [entry.location.partition("/")[0]]) is None:
        alone = manifest.dequeue(sequence - 1).data
        assert alone.startswith(encode_entry(sequence, entry))


def check_error(error: FormatError, sequence: int | None) -> None:
    assert (error.object, error.sequence) == (NAME, sequence)
    assert f"(at offset {error.offset}" in str(error)


def write_seeds(corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for path in (HERE.parent / "golden" / "buffer_v1").glob("*.bin"):
        (corpus / path.stem).write_bytes(path.read_bytes())
    for kind, make in hostile.KINDS.items():
        for number, (data, _) in enumerate(make().values()):
            if len(data) <= SEED_BYTES_MAX:
                (corpus / f"{kind}-{number}").write_bytes(data)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    # libFuzzer takes the corpus's directory as its first argument too.
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
